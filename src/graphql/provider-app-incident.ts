import type { HealthReason as HealthReasonValue } from '../generated/prisma/enums.js';
import { builder } from './builder.js';
import { HealthReason } from './health.js';

export const ProviderAppIncident = builder
  .objectRef<{ appId: string; reason: HealthReasonValue; since: Date }>('ProviderAppIncident')
  .implement({
    description: 'A trouble of the app itself. Its connections are unharmed; their refreshes wait.',
    fields: (t) => ({
      reason: t.field({ type: HealthReason, description: 'What is wrong.', resolve: (incident) => incident.reason }),
      since: t.field({ type: 'DateTime', description: 'Since when.', resolve: (incident) => incident.since }),
      affectedGrants: t.int({
        description: 'How many live connections wait for it.',
        resolve: (incident, _args, ctx) =>
          ctx.prisma.grant.count({
            where: { appId: incident.appId, healthStatus: { in: ['HEALTHY', 'DEGRADED'] } },
          }),
      }),
    }),
  });
