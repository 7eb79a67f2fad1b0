import type { PrismaClient } from '../generated/prisma/client.js';
import type { Renewals } from '../domain/credential.js';
import type { CandidateReader } from '../domain/credential-reader.js';
import type { Deps } from '../domain/deps.js';
import type { Refresher } from '../domain/refresh.js';
import type { HealthEventStream } from '../feed/event-stream.js';

export const PERMISSIONS = [
  'CREDENTIALS_READ',
  'CONNECTIONS_READ',
  'CONNECTIONS_WRITE',
  'TENANTS_WRITE',
  'PROVIDER_APPS_WRITE',
  'SESSIONS_CREATE',
  'KEYS_WRITE',
  'AUDIT_READ',
] as const;

export type Permission = (typeof PERMISSIONS)[number];

/** Who is calling, established before anything of the request is parsed. */
export interface Principal {
  kind: 'SERVER_KEY' | 'FRONTEND_SESSION';
  permissions: readonly Permission[];
  /** Null: not restricted to a tenant. */
  tenantId: string | null;
  externalUserId: string | null;
  expiresAt: Date | null;
}

/** What outlives a request and every resolver may use. */
export interface GraphQLDeps extends Deps {
  refresher: Refresher;
  candidates: CandidateReader;
  renewals: Renewals;
  healthEvents: HealthEventStream;
}

/** What resolvers are given. */
export interface Context extends GraphQLDeps {
  prisma: PrismaClient;
  principal: Principal;
}
