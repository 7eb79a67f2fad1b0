import fc from 'fast-check';
import { expect, test } from 'vitest';
import { healthOf, isLive, nextHealth, sameHealth, type HealthFact, type HealthState } from '../src/domain/health.js';
import { HealthReason } from '../src/generated/prisma/enums.js';
import { everyFact, everyState } from './support/health-facts.js';

const pairs = everyState.flatMap((state) => everyFact.map((fact) => ({ state, fact })));
const anyState = fc.constantFrom(...everyState);
const anyFact = fc.constantFrom(...everyFact);
const anyFacts = fc.array(anyFact, { maxLength: 10 });

const after = (state: HealthState, facts: readonly HealthFact[]) => facts.reduce(nextHealth, state);
const broken = (holds: (pair: (typeof pairs)[number]) => boolean) => pairs.filter((pair) => !holds(pair));

test('a fact that is found out twice changes health once', () => {
  expect(
    broken(({ state, fact }) => sameHealth(nextHealth(nextHealth(state, fact), fact), nextHealth(state, fact))),
  ).toEqual([]);
});

test('what is found out says what follows: neither the state nor the fact is changed by it', () => {
  const freeze = <T extends object>(value: T): T => {
    for (const part of Object.values(value)) if (typeof part === 'object') freeze(part as object);
    return Object.freeze(value);
  };
  for (const { state, fact } of pairs) {
    const before = structuredClone({ state, fact });
    const next = nextHealth(freeze({ ...state }), freeze(structuredClone(fact)));
    expect(nextHealth(state, fact)).toEqual(next);
    expect({ state, fact }).toEqual(before);
  }
});

test('a grant that lacks scopes is not called healthy once that is known', () => {
  const lacks = (fact: HealthFact) => 'missingScopes' in fact && fact.missingScopes.length > 0;
  expect(broken(({ state, fact }) => !lacks(fact) || nextHealth(state, fact).status !== 'HEALTHY')).toEqual([]);
});

test('after whatever has happened a full consent connects, and disconnecting is the end of it', () => {
  fc.assert(
    fc.property(anyState, anyFacts, (start, facts) => {
      const state = after(start, facts);
      expect(nextHealth(state, { kind: 'consented', missingScopes: [] })).toEqual(healthOf('CONNECTED'));
      expect(nextHealth(state, { kind: 'ended', reason: 'DISCONNECTED' }).status).toBe('REVOKED');
    }),
  );
});

test('a grant that has ended is not live again without a consent or proof of good tokens', () => {
  const withoutProof = anyFact.filter(({ kind }) => kind !== 'consented' && kind !== 'revived');
  fc.assert(
    fc.property(anyState, fc.array(withoutProof, { maxLength: 10 }), (start, facts) => {
      let state = start;
      for (const fact of facts) {
        const next = nextHealth(state, fact);
        expect(isLive(next.status) && !isLive(state.status)).toBe(false);
        state = next;
      }
    }),
  );
});

test('one outage is one incident: between two successes of a refresh health falls at most once', () => {
  const meanwhile = anyFact.filter((fact) => fact.kind === 'failed' || (fact.kind === 'worked' && fact.by === 'probe'));
  const complete = meanwhile.filter((fact) => !('missingScopes' in fact && fact.missingScopes.length > 0));
  fc.assert(
    fc.property(fc.array(complete, { maxLength: 20 }), (facts) => {
      let falls = 0;
      let state = healthOf('CONNECTED');
      for (const fact of facts) {
        const next = nextHealth(state, fact);
        if (state.status === 'HEALTHY' && next.status === 'DEGRADED') falls += 1;
        state = next;
      }
      expect(falls).toBeLessThanOrEqual(1);
    }),
  );
});

test('every reason can come about, but for that of an app, which is no news of any grant', () => {
  const reached = new Set<HealthReason>();
  const open: HealthState[] = [healthOf('CONNECTED')];
  for (let state = open.pop(); state !== undefined; state = open.pop()) {
    if (reached.has(state.reason)) continue;
    reached.add(state.reason);
    for (const fact of everyFact) open.push(nextHealth(state, fact));
  }
  expect(Object.values(HealthReason).filter((reason) => !reached.has(reason))).toEqual(['APP_REJECTED']);
});
