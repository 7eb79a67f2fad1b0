import fc from 'fast-check';
import { expect, test } from 'vitest';
import {
  afterRejection,
  afterSuccess,
  afterTransientFailure,
  healthOf,
  isLive,
  remedyFor,
  sameHealth,
  type HealthState,
} from '../src/domain/health.js';
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

test.each<[HealthReason, string[], HealthReason]>([
  ['CONNECTED', [], 'CONNECTED'],
  ['RECOVERED', [], 'RECOVERED'],
  ['PROVIDER_UNAVAILABLE', [], 'RECOVERED'],
  ['RATE_LIMITED', [], 'RECOVERED'],
  ['SCOPES_MISSING', [], 'RECOVERED'],
  ['CONNECTED', ['a:b'], 'SCOPES_MISSING'],
  ['PROVIDER_UNAVAILABLE', ['a:b'], 'SCOPES_MISSING'],
])('%s after a success with %j missing is %s', (current, missing, next) => {
  expect(afterSuccess(healthOf(current), missing)).toEqual(healthOf(next));
});

test.each<[HealthReason, number, HealthReason]>([
  ['CONNECTED', 1, 'CONNECTED'],
  ['CONNECTED', 2, 'CONNECTED'],
  ['CONNECTED', 3, 'RATE_LIMITED'],
  ['RECOVERED', 4, 'RATE_LIMITED'],
  ['PROVIDER_UNAVAILABLE', 9, 'PROVIDER_UNAVAILABLE'],
  ['SCOPES_MISSING', 9, 'SCOPES_MISSING'],
])('%s after %i failures in a row is %s', (current, failures, next) => {
  expect(afterTransientFailure(healthOf(current), { reason: 'RATE_LIMITED', failures, threshold: 3 })).toEqual(
    healthOf(next),
  );
});

test.each<[(typeof rejections)[number], boolean, HealthReason]>([
  ['REJECTED', false, 'GRANT_REJECTED'],
  ['REJECTED', true, 'ROTATION_LOST'],
  ['EXPIRED', true, 'GRANT_EXPIRED'],
  ['USER_REMOVED', true, 'PROVIDER_USER_REMOVED'],
  ['DISABLED_BY_ADMIN', false, 'DISABLED_BY_ADMIN'],
  ['SUPERSEDED', true, 'SUPERSEDED'],
])('a rejection as %s (in doubt: %s) is %s', (rejection, inDoubt, next) => {
  expect(afterRejection(healthOf('CONNECTED'), { rejection, inDoubt })).toEqual(healthOf(next));
});

/** Any number of things that may happen to a grant while it is refreshed and probed. */
const happening = fc.oneof(
  fc
    .array(fc.constantFrom('a:b', 'c:d'), { maxLength: 2 })
    .map((missing) => (state: HealthState) => afterSuccess(state, missing)),
  fc
    .record({
      reason: fc.constantFrom('PROVIDER_UNAVAILABLE' as const, 'RATE_LIMITED' as const),
      failures: fc.nat(10),
      threshold: fc.integer({ min: 1, max: 5 }),
    })
    .map((failure) => (state: HealthState) => afterTransientFailure(state, failure)),
  fc.tuple(fc.constantFrom(...rejections), fc.boolean()).map(
    ([rejection, inDoubt]) =>
      (state: HealthState) =>
        afterRejection(state, { rejection, inDoubt }),
  ),
);

test('whatever happens, the status follows from the reason', () => {
  fc.assert(
    fc.property(anyState, fc.array(happening, { maxLength: 12 }), (start, steps) => {
      const end = steps.reduce((state, step) => step(state), start);
      expect(end.status).toBe(STATUS_OF[end.reason]);
    }),
  );
});

test('nothing that happens by itself revives a grant that ended, or changes why it ended', () => {
  const ended = anyState.filter(({ status }) => !isLive(status));
  fc.assert(
    fc.property(ended, fc.array(happening, { maxLength: 12 }), (start, steps) => {
      expect(steps.reduce((state, step) => step(state), start)).toEqual(start);
    }),
  );
});

test('failures that may pass never end a grant', () => {
  const live = anyState.filter(({ status }) => isLive(status));
  fc.assert(
    fc.property(live, fc.nat(50), fc.integer({ min: 1, max: 5 }), (state, failures, threshold) => {
      const next = afterTransientFailure(state, { reason: 'PROVIDER_UNAVAILABLE', failures, threshold });
      expect(isLive(next.status)).toBe(true);
    }),
  );
});

test('a rejection of a live grant always asks for authorization and never revokes', () => {
  const live = anyState.filter(({ status }) => isLive(status));
  fc.assert(
    fc.property(live, fc.constantFrom(...rejections), fc.boolean(), (state, rejection, inDoubt) => {
      expect(afterRejection(state, { rejection, inDoubt }).status).toBe('REAUTHORIZATION_REQUIRED');
    }),
  );
});

test('a success that changes nothing is told from one that does', () => {
  const live = anyState.filter(({ status }) => isLive(status));
  fc.assert(
    fc.property(live, (state) => {
      expect(sameHealth(state, afterSuccess(state, []))).toBe(state.status === 'HEALTHY');
    }),
  );
});
