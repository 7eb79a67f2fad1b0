import { createHash, randomBytes } from 'node:crypto';
import { DEFAULT_KNOBS, type Knobs } from './knobs.js';
import type { Account, App, AuthorizationCode, Delivery, Grant, Meeting, Token, User, UserRole } from './model.js';

/** Everything the sandbox would have to remember if it were Zoom, and its knobs; not the ledger and faults. */
export interface State {
  /** Base64 of the key that signs tokens, so that tokens issued before a restart look like those issued after. */
  signingKey: string;
  knobs: Knobs;
  accounts: Map<string, Account>;
  users: Map<string, User>;
  apps: Map<string, App>;
  /** Keyed by `grantKeyOf`. */
  grants: Map<string, Grant>;
  /** Keyed by `hashOf` the token. */
  tokens: Map<string, Token>;
  /** Keyed by `hashOf` the code; a code is removed when it is used. */
  codes: Map<string, AuthorizationCode>;
  deliveries: Map<string, Delivery>;
  /** Keyed by number. */
  meetings: Map<number, Meeting>;
}

const FORMAT = 1;

/** Looks like Zoom's ids (22 base64url characters) and is the same on every machine. */
const presetId = (name: string): string =>
  createHash('sha256').update(`latchkey sandbox: ${name}`).digest('base64url').replaceAll(/[-_]/g, 'x').slice(0, 22);

const PRESET: { account: string; domain: string; people: [name: string, role: UserRole][] }[] = [
  {
    account: 'Acme',
    domain: 'acme.example',
    people: [
      ['Ada Adler', 'Admin'],
      ['Ben Brook', 'Member'],
      ['Cleo Chen', 'Member'],
    ],
  },
  {
    account: 'Globex',
    domain: 'globex.example',
    people: [
      ['Gina Gray', 'Admin'],
      ['Hugo Hart', 'Member'],
      ['Iris Ito', 'Member'],
    ],
  },
];

/** Two accounts, each with an admin and two members, under ids that never change. */
function presetPeople(): Pick<State, 'accounts' | 'users'> {
  const accounts = new Map<string, Account>();
  const users = new Map<string, User>();
  for (const { account, domain, people } of PRESET) {
    const accountId = presetId(account);
    accounts.set(accountId, { id: accountId, name: account });
    for (const [displayName, role] of people) {
      const email = `${displayName.split(' ')[0]!.toLowerCase()}@${domain}`;
      const id = presetId(email);
      users.set(id, { id, accountId, email, displayName, role, removed: false });
    }
  }
  return { accounts, users };
}

/** The state of a sandbox that nobody has used yet. */
export function freshState(): State {
  return {
    signingKey: randomBytes(64).toString('base64'),
    knobs: { ...DEFAULT_KNOBS },
    ...presetPeople(),
    apps: new Map(),
    grants: new Map(),
    tokens: new Map(),
    codes: new Map(),
    deliveries: new Map(),
    meetings: new Map(),
  };
}

/** JSON text that `restoreState` reads back. It holds app secrets and the signing key, but no token or code. */
export function serializeState(state: State): string {
  return JSON.stringify({ format: FORMAT, ...state }, (_key, value: unknown) =>
    value instanceof Map ? [...value.entries()] : value,
  );
}

/** @throws {Error} the text is not a saved sandbox of this format. */
export function restoreState(text: string): State {
  const saved = JSON.parse(text) as { format?: unknown } & Record<keyof State, never>;
  if (saved.format !== FORMAT)
    throw new Error(`The saved sandbox is not of format ${FORMAT}; delete it to start afresh.`);
  return {
    signingKey: saved.signingKey,
    knobs: { ...DEFAULT_KNOBS, ...(saved.knobs as Knobs) },
    accounts: new Map(saved.accounts),
    users: new Map(saved.users),
    apps: new Map(saved.apps),
    grants: new Map(saved.grants),
    tokens: new Map(saved.tokens),
    codes: new Map(saved.codes),
    deliveries: new Map(saved.deliveries),
    // A sandbox that was saved before it had meetings has none.
    meetings: new Map((saved.meetings as [number, Meeting][] | undefined) ?? []),
  };
}
