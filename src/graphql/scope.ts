import { isScopeName, parseScope, type Scope as ScopeShape } from '../domain/scope.js';
import { builder } from './builder.js';

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
  id: { resolve: (scope) => scope.name },
  loadOne: (id) => (isScopeName(id) ? parseScope(id) : null),
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
  }),
});
