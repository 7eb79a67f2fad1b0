import fc from 'fast-check';
import { expect, test } from 'vitest';
import { healthOf, isLive, nextHealth, remedyFor, sameHealth, type HealthFact } from '../src/domain/health.js';
import { HealthReason, HealthStatus } from '../src/generated/prisma/enums.js';

const STATUS_OF: Record<HealthReason, HealthStatus> = {
  CONNECTED: 'HEALTHY',
  RECOVERED: 'HEALTHY',
  PROVIDER_UNAVAILABLE: 'DEGRADED',
  RATE_LIMITED: 'DEGRADED',
  APP_REJECTED: 'DEGRADED',
  SCOPES_MISSING: 'DEGRADED',
  GRANT_REJECTED: 'REAUTHORIZATION_REQUIRED',
  GRANT_EXPIRED: 'REAUTHORIZATION_REQUIRED',
  ROTATION_LOST: 'REAUTHORIZATION_REQUIRED',
  SUPERSEDED: 'REAUTHORIZATION_REQUIRED',
  PROVIDER_USER_REMOVED: 'REAUTHORIZATION_REQUIRED',
  DISABLED_BY_ADMIN: 'REAUTHORIZATION_REQUIRED',
  DEAUTHORIZED_AT_PROVIDER: 'REVOKED',
  DISCONNECTED: 'REVOKED',
};

const reasons = Object.values(HealthReason);
const anyState = fc.constantFrom(...reasons).map(healthOf);
const rejections = ['REJECTED', 'EXPIRED', 'USER_REMOVED', 'DISABLED_BY_ADMIN', 'SUPERSEDED'] as const;

test.each(reasons)('%s has one status', (reason) => {
  expect(healthOf(reason)).toEqual({ status: STATUS_OF[reason], reason });
});

test('a grant is live exactly while it is healthy or degraded', () => {
  expect(Object.values(HealthStatus).filter(isLive)).toEqual(['HEALTHY', 'DEGRADED']);
});

test('every reason but those of health tells a person what to do', () => {
  expect(reasons.filter((reason) => remedyFor(reason) === null)).toEqual(['CONNECTED', 'RECOVERED']);
});

const worked = (missingScopes: string[], by: 'refresh' | 'probe' = 'refresh'): HealthFact => ({
  kind: 'worked',
  by,
  missingScopes,
});

test.each<[HealthReason, string[], HealthReason]>([
  ['CONNECTED', [], 'CONNECTED'],
  ['RECOVERED', [], 'RECOVERED'],
  ['PROVIDER_UNAVAILABLE', [], 'RECOVERED'],
  ['RATE_LIMITED', [], 'RECOVERED'],
  ['SCOPES_MISSING', [], 'RECOVERED'],
  ['CONNECTED', ['a:b'], 'SCOPES_MISSING'],
  ['PROVIDER_UNAVAILABLE', ['a:b'], 'SCOPES_MISSING'],
])('%s after a success with %j missing is %s', (current, missing, next) => {
  expect(nextHealth(healthOf(current), worked(missing))).toEqual(healthOf(next));
});

test.each<[HealthReason, HealthReason]>([
  ['CONNECTED', 'CONNECTED'],
  ['SCOPES_MISSING', 'RECOVERED'],
  ['PROVIDER_UNAVAILABLE', 'PROVIDER_UNAVAILABLE'],
  ['RATE_LIMITED', 'RATE_LIMITED'],
])('%s after a probe that Zoom took is %s: a token that works does not disprove a failing refresh', (current, next) => {
  expect(nextHealth(healthOf(current), worked([], 'probe'))).toEqual(healthOf(next));
});

test.each<[HealthReason, number, HealthReason]>([
  ['CONNECTED', 1, 'CONNECTED'],
  ['CONNECTED', 2, 'CONNECTED'],
  ['CONNECTED', 3, 'RATE_LIMITED'],
  ['RECOVERED', 4, 'RATE_LIMITED'],
  ['PROVIDER_UNAVAILABLE', 9, 'PROVIDER_UNAVAILABLE'],
  ['SCOPES_MISSING', 9, 'SCOPES_MISSING'],
])('%s after %i failures in a row is %s', (current, failures, next) => {
  const fact: HealthFact = { kind: 'failed', reason: 'RATE_LIMITED', failures, threshold: 3 };
  expect(nextHealth(healthOf(current), fact)).toEqual(healthOf(next));
});

test.each<[(typeof rejections)[number], boolean, boolean, HealthReason]>([
  ['REJECTED', false, false, 'GRANT_REJECTED'],
  ['REJECTED', true, false, 'ROTATION_LOST'],
  ['REJECTED', false, true, 'GRANT_EXPIRED'],
  ['EXPIRED', true, false, 'GRANT_EXPIRED'],
  ['USER_REMOVED', true, true, 'PROVIDER_USER_REMOVED'],
  ['DISABLED_BY_ADMIN', false, false, 'DISABLED_BY_ADMIN'],
  ['SUPERSEDED', true, true, 'SUPERSEDED'],
])('a rejection as %s (in doubt: %s, idle: %s) is %s', (rejection, inDoubt, idle, next) => {
  expect(nextHealth(healthOf('CONNECTED'), { kind: 'rejected', rejection, inDoubt, idle })).toEqual(healthOf(next));
});

test.each<[HealthReason, string[], HealthReason]>([
  ['ROTATION_LOST', [], 'RECOVERED'],
  ['DISABLED_BY_ADMIN', ['a:b'], 'SCOPES_MISSING'],
  ['DISCONNECTED', [], 'DISCONNECTED'],
  ['DEAUTHORIZED_AT_PROVIDER', [], 'DEAUTHORIZED_AT_PROVIDER'],
])('%s whose tokens turn out to be good, with %j missing, is %s', (current, missingScopes, next) => {
  expect(nextHealth(healthOf(current), { kind: 'revived', missingScopes })).toEqual(healthOf(next));
});

test.each(reasons)('%s is connected by a new consent', (current) => {
  expect(nextHealth(healthOf(current), { kind: 'consented', missingScopes: [] })).toEqual(healthOf('CONNECTED'));
});

const scopes = fc.array(fc.constantFrom('a:b', 'c:d'), { maxLength: 2 });

const failure = fc.record({
  kind: fc.constant('failed' as const),
  reason: fc.constantFrom('PROVIDER_UNAVAILABLE' as const, 'RATE_LIMITED' as const),
  failures: fc.nat(10),
  threshold: fc.integer({ min: 1, max: 5 }),
});

const rejection = fc.record({
  kind: fc.constant('rejected' as const),
  rejection: fc.constantFrom(...rejections),
  inDoubt: fc.boolean(),
  idle: fc.boolean(),
});

/** Any number of things that may happen to a grant while it is refreshed and probed. */
const happening: fc.Arbitrary<HealthFact> = fc.oneof(
  fc.record({
    kind: fc.constant('worked' as const),
    by: fc.constantFrom('refresh' as const, 'probe' as const),
    missingScopes: scopes,
  }),
  fc.record({ kind: fc.constant('required' as const), missingScopes: scopes }),
  failure,
  rejection,
);

/** Any fact at all. */
const fact: fc.Arbitrary<HealthFact> = fc.oneof(
  happening,
  fc.record({ kind: fc.constantFrom('consented' as const, 'revived' as const), missingScopes: scopes }),
  fc.record({
    kind: fc.constant('ended' as const),
    reason: fc.constantFrom('DISCONNECTED' as const, 'DEAUTHORIZED_AT_PROVIDER' as const, 'SUPERSEDED' as const),
  }),
);

const live = anyState.filter(({ status }) => isLive(status));

test('whatever is found out, the status follows from the reason', () => {
  fc.assert(
    fc.property(anyState, fc.array(fact, { maxLength: 12 }), (start, facts) => {
      const end = facts.reduce(nextHealth, start);
      expect(end.status).toBe(STATUS_OF[end.reason]);
    }),
  );
});

test('nothing that happens by itself revives a grant that ended, or changes why it ended', () => {
  const ended = anyState.filter(({ status }) => !isLive(status));
  fc.assert(
    fc.property(ended, fc.array(happening, { maxLength: 12 }), (start, facts) => {
      expect(facts.reduce(nextHealth, start)).toEqual(start);
    }),
  );
});

test('what was ended on purpose comes back by consent only', () => {
  const revoked = anyState.filter(({ status }) => status === 'REVOKED');
  const withoutConsent = fact.filter(({ kind }) => kind !== 'consented');
  fc.assert(
    fc.property(revoked, fc.array(withoutConsent, { maxLength: 12 }), (start, facts) => {
      expect(facts.reduce(nextHealth, start)).toEqual(start);
    }),
  );
});

test('however many failures follow each other, a grant changes at most once, and never ends by them', () => {
  fc.assert(
    fc.property(live, fc.array(failure, { maxLength: 12 }), (start, facts) => {
      let changes = 0;
      const end = facts.reduce((state, next) => {
        const after = nextHealth(state, next);
        changes += sameHealth(state, after) ? 0 : 1;
        return after;
      }, start);
      expect(changes).toBeLessThanOrEqual(1);
      expect(isLive(end.status)).toBe(true);
    }),
  );
});

test('a rejection of a live grant always asks for authorization and never revokes', () => {
  fc.assert(
    fc.property(live, rejection, (state, refused) => {
      expect(nextHealth(state, refused).status).toBe('REAUTHORIZATION_REQUIRED');
    }),
  );
});

test('a success that changes nothing is told from one that does', () => {
  fc.assert(
    fc.property(live, (state) => {
      expect(sameHealth(state, nextHealth(state, worked([])))).toBe(state.status === 'HEALTHY');
    }),
  );
});
