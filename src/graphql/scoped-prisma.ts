import type { Prisma, PrismaClient } from '../generated/prisma/client.js';
import type { Principal } from '../domain/principal.js';

type Condition = Record<string, unknown>;

/** What a principal of one tenant may read of each table: rows that meet a condition, all of them, or none. */
type Visibility = (principal: Principal & { tenantId: string }) => Condition | 'ALL' | 'NONE';

const ofTenant: Visibility = ({ tenantId }) => ({ tenantId });
const none: Visibility = () => 'NONE';

/** Of one user: their own connections, and the installations that they live under. */
export const visibleGrants = ({ tenantId, externalUserId }: Principal): Prisma.GrantWhereInput => ({
  ...(tenantId === null ? {} : { tenantId }),
  ...(externalUserId === null ? {} : { OR: [{ kind: 'INSTALLATION' }, { externalUserId }] }),
});

const withGrant: Visibility = (principal) => ({
  tenantId: principal.tenantId,
  ...(principal.externalUserId === null ? {} : { grant: visibleGrants(principal) }),
});

/** A browser sees the trips that it began, and those of its user. */
const visibleTrips: Visibility = ({ kind, id, tenantId, externalUserId }) => ({
  tenantId,
  ...(kind === 'SERVER_KEY'
    ? {}
    : { OR: [{ frontendSessionId: id }, ...(externalUserId === null ? [] : [{ externalUserId }])] }),
});

/** One entry for each table: one without an entry does not compile. */
const VISIBILITY: Record<Prisma.ModelName, Visibility> = {
  AuditChain: none,
  AuditEvent: ({ kind, tenantId }) => (kind === 'SERVER_KEY' ? { chainId: tenantId } : 'NONE'),
  AuditKey: none,
  AuthorizationSession: visibleTrips,
  Credential: withGrant,
  DeauthorizationReceipt: none,
  Deployment: none,
  FrontendSession: none,
  Grant: (principal) => visibleGrants(principal) as Condition,
  HealthEvent: withGrant,
  HealthEventLog: none,
  HostedMeeting: none,
  MeetingListing: none,
  ProviderAccount: none,
  ProviderApp: () => 'ALL',
  ProviderRevocation: none,
  RefreshCanary: none,
  RefreshPace: none,
  Revocation: none,
  RevocationReceipt: none,
  RootKey: none,
  ServerKey: ({ kind, tenantId }) => (kind === 'SERVER_KEY' ? { tenantId } : 'NONE'),
  Tenant: ({ tenantId }) => ({ id: tenantId }),
  TenantDeletion: none,
  TenantKey: ofTenant,
  UrlSigningKey: none,
  WebhookDelivery: ({ kind, tenantId }) => (kind === 'SERVER_KEY' ? { endpoint: { tenantId } } : 'NONE'),
  WebhookDeliveryAttempt: none,
  WebhookEndpoint: ({ kind, tenantId }) => (kind === 'SERVER_KEY' ? { tenantId } : 'NONE'),
  WebhookEvent: none,
};

/** Operations that take a condition; GraphQL reads with no others. */
const READS: ReadonlySet<string> = new Set([
  'aggregate',
  'count',
  'findFirst',
  'findFirstOrThrow',
  'findMany',
  'findUnique',
  'findUniqueOrThrow',
  'groupBy',
]);

function scope(client: PrismaClient, principal: Principal & { tenantId: string }): PrismaClient {
  const extended = client.$extends({
    query: {
      $allModels: {
        $allOperations: ({ model, operation, args, query }) => {
          const visible = VISIBILITY[model](principal);
          if (visible === 'NONE' || !READS.has(operation)) throw new Error('Not readable for one tenant.');
          if (visible === 'ALL') return query(args);
          const { where, ...rest } = args as { where?: Condition };
          const own = where?.['AND'];
          const conditions = own === undefined ? [] : Array.isArray(own) ? (own as Condition[]) : [own as Condition];
          // Beside the given conditions, so that a unique one stays where Prisma wants it.
          return query({ ...rest, where: { ...where, AND: [...conditions, visible] } } as typeof args);
        },
      },
    },
  });
  return extended as unknown as PrismaClient;
}

/** Principals are kept for some seconds, and their clients as long as they. */
const clients = new WeakMap<Principal, PrismaClient>();

/**
 * The client for a principal: for one that is restricted to a tenant, whatever is looked up is looked up among what
 * they may see, and what they may not see is not there. Relations that a query follows are not looked up by
 * themselves: those that lead out of the tenant, or to another user, need a condition of their own (`visibleGrants`).
 */
export function scopedPrisma(client: PrismaClient, principal: Principal): PrismaClient {
  const { tenantId } = principal;
  if (tenantId === null) return client;
  let scoped = clients.get(principal);
  if (scoped === undefined) {
    scoped = scope(client, { ...principal, tenantId });
    clients.set(principal, scoped);
  }
  return scoped;
}
