import {
  AlreadyExistsError,
  AmbiguousGrantError,
  type DomainError,
  GrantNotFoundError,
  GrantRefusedError,
  InvalidInputError,
  LimitExceededError,
  MeetingNotFoundError,
  MissingScopesError,
  NotFoundError,
  ProviderAppInUseError,
  ProviderUnavailableError,
  ReauthorizationRequiredError,
  RefusedByProviderError,
  type UnknownScope,
  UnknownScopesError,
} from '../errors.js';
import { AuthorizationFailure } from './authorization-session.js';
import { builder } from './builder.js';
import { HealthReason } from './health.js';
import { Grant } from './grant.js';

const ErrorInterface = builder.interfaceRef<DomainError>('Error').implement({
  description: 'A failed outcome the caller can act on. `__typename` is the code.',
  fields: (t) => ({
    message: t.exposeString('message', { description: 'What went wrong, in one English sentence for developers.' }),
  }),
});

builder.objectType(NotFoundError, {
  name: 'NotFoundError',
  description: 'There is no such thing, or none the caller may see.',
  interfaces: [ErrorInterface],
});

builder.objectType(AlreadyExistsError, {
  name: 'AlreadyExistsError',
  description: 'Something with this identifier is there already.',
  interfaces: [ErrorInterface],
});

builder.objectType(InvalidInputError, {
  name: 'InvalidInputError',
  description: 'An argument breaks a rule; nothing was changed.',
  interfaces: [ErrorInterface],
  fields: (t) => ({
    path: t.stringList({
      description: "Leads to the argument, from the field's arguments: `input`, `returnTo`.",
      resolve: (error) => [...error.path],
    }),
  }),
});

const UnknownScopeProblem = builder.enumType('UnknownScopeProblem', {
  description: 'Why a scope was not taken.',
  values: {
    NOT_IN_CATALOGUE: { description: 'Zoom has no scope of this name.' },
    WRONG_LEVEL_FOR_APP_KIND: { description: 'Apps of this kind cannot have a scope of this level.' },
  },
});

const UnknownScopeType = builder.objectRef<UnknownScope>('UnknownScope').implement({
  description: 'A scope that was not taken.',
  fields: (t) => ({
    name: t.exposeString('name', { description: 'As it was given.' }),
    problem: t.field({ type: UnknownScopeProblem, description: 'Why.', resolve: (scope) => scope.problem }),
    suggestions: t.stringList({
      description: 'Nearest real names, best first; empty where nothing is near.',
      resolve: (scope) => [...scope.suggestions],
    }),
  }),
});

builder.objectType(UnknownScopesError, {
  name: 'UnknownScopesError',
  description: 'Some scopes are none that Zoom has for an app of this kind.',
  interfaces: [ErrorInterface],
  fields: (t) => ({
    scopes: t.field({ type: [UnknownScopeType], description: 'Each of them.', resolve: (error) => [...error.scopes] }),
  }),
});

builder.objectType(ProviderAppInUseError, {
  name: 'ProviderAppInUseError',
  description: 'The app still has connections, so it cannot be removed.',
  interfaces: [ErrorInterface],
  fields: (t) => ({ liveGrants: t.exposeInt('liveGrants', { description: 'How many connections use it.' }) }),
});

builder.objectType(LimitExceededError, {
  name: 'LimitExceededError',
  description: 'A ceiling is reached that lowers by itself.',
  interfaces: [ErrorInterface],
  fields: (t) => ({
    retryAfterSeconds: t.exposeInt('retryAfterSeconds', { description: 'Try again after this long.' }),
  }),
});

builder.objectType(GrantNotFoundError, {
  name: 'GrantNotFoundError',
  description: 'There never was a connection that matches.',
  interfaces: [ErrorInterface],
});

builder.objectType(AmbiguousGrantError, {
  name: 'AmbiguousGrantError',
  description: 'Several connections match; name one by `grantId`.',
  interfaces: [ErrorInterface],
  fields: (t) => ({
    candidates: t.prismaField({
      type: [Grant],
      description: 'The connections that match.',
      resolve: (query, error, _args, ctx) =>
        ctx.prisma.grant.findMany({ ...query, where: { id: { in: [...error.candidateIds] } } }),
    }),
  }),
});

builder.objectType(ReauthorizationRequiredError, {
  name: 'ReauthorizationRequiredError',
  description: 'The connection has ended. Only a person going through consent again can repair it.',
  interfaces: [ErrorInterface],
  fields: (t) => ({
    reason: t.field({ type: HealthReason, description: 'Why it ended.', resolve: (error) => error.reason }),
    grant: t.prismaField({
      type: Grant,
      description: 'The connection.',
      resolve: (query, error, _args, ctx) =>
        ctx.prisma.grant.findUniqueOrThrow({ ...query, where: { id: error.grantId } }),
    }),
  }),
});

builder.objectType(MissingScopesError, {
  name: 'MissingScopesError',
  description: 'The connection lacks scopes that the caller requires.',
  interfaces: [ErrorInterface],
  fields: (t) => ({
    missingScopes: t.stringList({
      description: 'The required scopes that were not granted.',
      resolve: (error) => [...error.missingScopes],
    }),
    grant: t.prismaField({
      type: Grant,
      description: 'The connection.',
      resolve: (query, error, _args, ctx) =>
        ctx.prisma.grant.findUniqueOrThrow({ ...query, where: { id: error.grantId } }),
    }),
  }),
});

builder.objectType(ProviderUnavailableError, {
  name: 'ProviderUnavailableError',
  description: 'Zoom cannot be asked now and no stored token serves; waiting helps.',
  interfaces: [ErrorInterface],
  fields: (t) => ({
    reason: t.field({ type: HealthReason, description: 'What is in the way.', resolve: (error) => error.reason }),
    retryAfterSeconds: t.exposeInt('retryAfterSeconds', { description: 'Try again after this long.' }),
  }),
});

builder.objectType(RefusedByProviderError, {
  name: 'RefusedByProviderError',
  description:
    "Zoom understood the request and refused it for this app and account: a wrong account id, local recording switched off, a host's plan that lacks it.",
  interfaces: [ErrorInterface],
  fields: (t) => ({
    providerCode: t.exposeString('providerCode', {
      nullable: true,
      description: "Zoom's own number for the refusal; null where it gave none.",
    }),
  }),
});

builder.objectType(MeetingNotFoundError, {
  name: 'MeetingNotFoundError',
  description: 'No connection that the caller may use reaches such a meeting, or Zoom has none of this number.',
  interfaces: [ErrorInterface],
});

builder.objectType(GrantRefusedError, {
  name: 'GrantRefusedError',
  description: 'The tokens work, but whom they speak for may not be connected here.',
  interfaces: [ErrorInterface],
  fields: (t) => ({
    failure: t.field({
      type: AuthorizationFailure,
      description: 'Why: what a consent trip would fail with.',
      resolve: (error) => error.failure,
    }),
  }),
});
