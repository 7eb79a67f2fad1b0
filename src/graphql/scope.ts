import {
  describedScope,
  filterScopes,
  findScope,
  findScopeById,
  type Scope as ScopeShape,
} from '../zoom-scopes/catalogue.js';
import { isScopeToken } from '../zoom-scopes/grammar.js';
import { builder } from './builder.js';
import { listPage, TOTAL_COUNT, totalCountOf } from './connection.js';
import { Provider } from './provider.js';

const ScopeLevel = builder.enumType('ScopeLevel', {
  description: 'How far a scope reaches.',
  values: {
    USER: { description: 'The user who authorized.' },
    ADMIN: { description: 'The whole account.' },
    MASTER: { description: 'The account and its sub accounts.' },
  },
});

const ScopeVocabulary = builder.enumType('ScopeVocabulary', {
  description: "Which of Zoom's two vocabularies a scope belongs to.",
  values: {
    GRANULAR: { description: 'One scope for each operation; what apps created since 2024 use.' },
    CLASSIC: { description: 'One scope for many operations; older apps keep them until they are migrated.' },
  },
});

export const Scope = builder.objectRef<ScopeShape>('Scope');

builder.node(Scope, {
  description: 'A permission at the provider, by its name there.',
  id: { resolve: (scope) => scope.id },
  loadOne: (id) => findScopeById(id) ?? (isScopeToken(id) ? describedScope(id) : null),
  isTypeOf: (value) => typeof value === 'object' && value !== null && 'vocabulary' in value,
  fields: (t) => ({
    name: t.exposeString('name', {
      description: "In the provider's own vocabulary: `meeting:read:list_meetings:admin`.",
    }),
    description: t.exposeString('description', { description: 'What it allows.' }),
    level: t.field({ type: ScopeLevel, description: 'How far it reaches.', resolve: (scope) => scope.level }),
    vocabulary: t.field({
      type: ScopeVocabulary,
      description: "Which of Zoom's vocabularies it belongs to.",
      resolve: (scope) => scope.vocabulary,
    }),
    resource: t.exposeString('resource', { description: '`meeting` of `meeting:read:list_meetings:admin`.' }),
    covers: t.field({
      type: [Scope],
      description: 'Granular scopes that a classic scope covers; empty for a granular one.',
      resolve: (scope) => scope.covers.map((name) => describedScope(name)),
    }),
  }),
});

builder.queryField('scope', (t) =>
  t.field({
    type: Scope,
    nullable: true,
    description: 'The scope of this name; null where the provider has none. Of two with one name the granular one.',
    args: { name: t.arg.string({ required: true, description: "In the provider's own vocabulary." }) },
    resolve: (_root, { name }) => findScope(name) ?? null,
  }),
);

const ScopeFilter = builder.inputType('ScopeFilter', {
  description: 'Which scopes a list shows; all conditions must hold.',
  fields: (t) => ({
    provider: t.field({ type: Provider, defaultValue: 'ZOOM', description: 'The provider.' }),
    level: t.field({ type: ScopeLevel, description: 'Only those that reach this far.' }),
    vocabulary: t.field({ type: ScopeVocabulary, description: 'Only those of this vocabulary.' }),
    resource: t.string({ description: 'Only those of this resource: `meeting`.' }),
    search: t.string({
      description:
        'Words that must all be in the name or the description, as parts of words too, in any case and order.',
    }),
  }),
});

const ScopeConnection = builder.connectionObject(
  {
    type: Scope,
    name: 'ScopeConnection',
    description: 'One page of scopes.',
    fields: (t) => ({ totalCount: t.int({ description: TOTAL_COUNT, resolve: totalCountOf }) }),
  },
  { name: 'ScopeEdge' },
);

builder.queryField('scopes', (t) =>
  t.connection(
    {
      type: Scope,
      description: 'The scopes that the provider has, as far as they are known here, by name.',
      args: { filter: t.arg({ type: ScopeFilter, description: 'Only those that match.' }) },
      resolve: (_root, args) => listPage(filterScopes(args.filter ?? {}), args, (scope) => `${scope.name} ${scope.id}`),
    },
    ScopeConnection,
  ),
);
