import { DESCRIPTIONS } from './descriptions.js';
import type { ScopeLevel, ScopeName, ScopeVocabulary } from './grammar.js';

const REACH: Readonly<Record<ScopeLevel, string>> = {
  USER: '',
  ADMIN: ' For the whole account.',
  MASTER: ' For the account and its sub accounts.',
};

const GRANULAR_VERBS: Readonly<Record<string, string>> = {
  read: 'Read',
  write: 'Create',
  update: 'Change',
  udpate: 'Change',
  patch: 'Change',
  delete: 'Delete',
};

const CLASSIC_VERBS: Readonly<Record<string, string>> = {
  read: 'Read',
  write: 'Create, change and delete',
  update: 'Change',
  delete: 'Delete',
  '': 'Read, create, change and delete',
};

const ABBREVIATIONS: Readonly<Record<string, string>> = {
  acl: 'access rules',
  aic: 'AI Companion',
  api: 'API',
  ai: 'AI',
  acd: 'ACD',
  crc: 'CRC',
  csv: 'CSV',
  h323: 'H.323',
  id: 'id',
  im: 'IM',
  ivr: 'IVR',
  iq: 'Revenue Accelerator',
  kb: 'knowledge base',
  kbs: 'knowledge bases',
  km: 'knowledge management',
  mgmt: 'management',
  msg: 'message',
  msgs: 'messages',
  pac: 'personal audio conference',
  qa: 'questions and answers',
  qna: 'questions and answers',
  qm: 'quality management',
  qos: 'quality of service',
  rtms: 'real-time media streams',
  scim2: 'SCIM 2',
  sip: 'SIP',
  sms: 'SMS',
  tsp: 'telephony service provider',
  url: 'URL',
  vod: 'video on demand',
  zak: 'ZAK',
  zpa: 'phone provisioning',
  zr: 'Zoom Rooms',
  zra: 'Revenue Accelerator',
  zva: 'Virtual Agent',
};

/** An own entry only: a part of a name may be `constructor`. */
const entryOf = (entries: Readonly<Record<string, string>>, key: string): string | undefined =>
  Object.hasOwn(entries, key) ? entries[key] : undefined;

const wordsOf = (part: string): string =>
  part
    .split(/[_:]/)
    .map((word) => entryOf(ABBREVIATIONS, word) ?? word)
    .join(' ');

const capitalized = (text: string) => text.charAt(0).toUpperCase() + text.slice(1);

function composeGranular({ resource, action, claim }: ScopeName): string {
  const list = action === 'read' && claim.startsWith('list_');
  const verb = list ? 'List' : (entryOf(GRANULAR_VERBS, action) ?? capitalized(wordsOf(action)));
  return `${verb} ${wordsOf(list ? claim.slice('list_'.length) : claim)} (${wordsOf(resource)}).`;
}

function composeClassic({ resource, action, claim }: ScopeName): string {
  const verb = entryOf(CLASSIC_VERBS, action) ?? `${capitalized(wordsOf(action))}:`;
  return `${verb} ${wordsOf(resource)} data${claim === '' ? '' : ` (${wordsOf(claim)})`}.`;
}

/** What a scope allows: a sentence written for it, or one composed from its name, and how far it reaches. */
export function describeScope(name: ScopeName, vocabulary: ScopeVocabulary): string {
  const compose = vocabulary === 'GRANULAR' && name.claim !== '' ? composeGranular : composeClassic;
  const sentence = entryOf(DESCRIPTIONS, name.base) ?? compose(name);
  return sentence + REACH[name.level];
}
