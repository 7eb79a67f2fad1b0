import { healthOf, nextHealth, type HealthFact, type HealthState } from '../../src/domain/health.js';
import { HealthReason } from '../../src/generated/prisma/enums.js';

export const everyState: readonly HealthState[] = Object.values(HealthReason).map(healthOf);

const scopes = [[], ['a:b']];
const booleans = [false, true];

/** Every fact there is, as far as facts can differ in what follows from them. */
export const everyFact: readonly HealthFact[] = [
  ...scopes.flatMap((missingScopes): HealthFact[] => [
    { kind: 'consented', missingScopes },
    { kind: 'worked', by: 'refresh', missingScopes },
    { kind: 'worked', by: 'probe', missingScopes },
    { kind: 'revived', missingScopes },
    { kind: 'required', missingScopes },
  ]),
  ...(['PROVIDER_UNAVAILABLE', 'RATE_LIMITED'] as const).flatMap((reason) =>
    [1, 2, 3].map((failures): HealthFact => ({ kind: 'failed', reason, failures, threshold: 2 })),
  ),
  ...(['REJECTED', 'EXPIRED', 'USER_REMOVED', 'DISABLED_BY_ADMIN', 'SUPERSEDED'] as const).flatMap((rejection) =>
    booleans.flatMap((inDoubt) => booleans.map((idle): HealthFact => ({ kind: 'rejected', rejection, inDoubt, idle }))),
  ),
  ...(['DISCONNECTED', 'DEAUTHORIZED_AT_PROVIDER', 'SUPERSEDED'] as const).map((reason): HealthFact => ({
    kind: 'ended',
    reason,
  })),
];

/** Whether some fact leads from the one health to the other. */
export const canFollow = (before: HealthState, after: HealthState): boolean =>
  everyFact.some((fact) => nextHealth(before, fact).reason === after.reason);
