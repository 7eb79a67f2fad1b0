import { HealthReason as HealthReasonValues, HealthStatus as HealthStatusValues } from '../generated/prisma/enums.js';
import { remedyFor } from '../domain/health.js';
import { builder } from './builder.js';

/** Gives each value of one of Prisma's enums its description. */
export function described<Value extends string>(
  values: Record<Value, Value>,
  descriptions: Record<Value, string>,
): Record<Value, { value: Value; description: string }> {
  const entries = Object.values<Value>(values).map((value) => [value, { value, description: descriptions[value] }]);
  return Object.fromEntries(entries) as Record<Value, { value: Value; description: string }>;
}

export const HealthStatus = builder.enumType('HealthStatus', {
  description: 'What a connection is good for.',
  values: described(HealthStatusValues, {
    HEALTHY: 'Working.',
    DEGRADED: 'Working now, or expected to recover by itself.',
    REAUTHORIZATION_REQUIRED: 'Only a person going through consent again can repair it.',
    REVOKED: 'Ended on purpose, here or at the provider.',
  }),
});

export const HealthReason = builder.enumType('HealthReason', {
  description: 'Why a connection has its status.',
  values: described(HealthReasonValues, {
    CONNECTED: 'Consent was given.',
    RECOVERED: 'An earlier trouble is over.',
    PROVIDER_UNAVAILABLE: 'Zoom does not answer, or answers with failures.',
    RATE_LIMITED: 'Zoom asks to slow down.',
    APP_REJECTED: "Zoom refuses the app's own client id or secret.",
    SCOPES_MISSING: 'The app requires scopes that were not granted.',
    GRANT_REJECTED: 'Zoom no longer accepts the grant.',
    GRANT_EXPIRED: 'The grant was unused for longer than Zoom allows.',
    ROTATION_LOST: 'Zoom renewed the token and its answer was lost on the way.',
    SUPERSEDED: 'The same Zoom user was connected through the same app again, which ends the older connection.',
    PROVIDER_USER_REMOVED: 'The Zoom user is no longer in the account.',
    DISABLED_BY_ADMIN: 'An administrator of the Zoom account disallowed the app.',
    DEAUTHORIZED_AT_PROVIDER: 'The app was removed at Zoom.',
    DISCONNECTED: 'It was disconnected here.',
  }),
});

const latest = (a: Date | null, b: Date | null): Date | null => (a === null || (b !== null && b > a) ? b : a);

export const Health = builder
  .objectRef<{
    healthStatus: keyof typeof HealthStatusValues;
    healthReason: keyof typeof HealthReasonValues;
    healthSince: Date;
    healthCheckedAt: Date | null;
    credential: { lastRefreshedAt: Date | null } | null;
  }>('Health')
  .implement({
    description: 'The present health of a connection.',
    fields: (t) => ({
      status: t.field({
        type: HealthStatus,
        description: 'What the connection is good for.',
        resolve: (health) => health.healthStatus,
      }),
      reason: t.field({ type: HealthReason, description: 'Why.', resolve: (health) => health.healthReason }),
      since: t.field({ type: 'DateTime', description: 'Since when.', resolve: (health) => health.healthSince }),
      lastCheckedAt: t.field({
        type: 'DateTime',
        nullable: true,
        description: 'When the provider last accepted or refused it; null where it was not asked yet.',
        resolve: ({ healthCheckedAt, credential }) => latest(healthCheckedAt, credential?.lastRefreshedAt ?? null),
      }),
      remedy: t.string({
        nullable: true,
        description: 'What a person should do about it, in one sentence; null when healthy.',
        resolve: (health) => remedyFor(health.healthReason),
      }),
    }),
  });
