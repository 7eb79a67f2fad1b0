import type { Prisma, PrismaClient } from '../generated/prisma/client.js';
import type { TenantDatabase } from '../database/database.js';
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
  RateUsage: none,
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

/**
 * Operations that take a condition, and the one each is carried out by; GraphQL reads with no others. Prisma gathers
 * what is looked up by a unique column from all its callers, so for callers of several tenants it is looked up apart.
 */
const READS: ReadonlyMap<string, string> = new Map([
  ['aggregate', 'aggregate'],
  ['count', 'count'],
  ['findFirst', 'findFirst'],
  ['findFirstOrThrow', 'findFirstOrThrow'],
  ['findMany', 'findMany'],
  ['findUnique', 'findFirst'],
  ['findUniqueOrThrow', 'findFirstOrThrow'],
  ['groupBy', 'groupBy'],
]);

const delegateOf = (model: string) => `${model.charAt(0).toLowerCase()}${model.slice(1)}`;

type Delegates = Record<string, Record<string, (args: unknown) => PromiseLike<unknown>>>;

/**
 * The client for a principal of one tenant: whatever is looked up is looked up among what they may see, and what they
 * may not see is not there. Relations that a query follows are not looked up by themselves: those that lead to another
 * user need a condition of their own (`visibleGrants`). Those that lead out of the tenant end at row-level security,
 * under which all of it is read.
 */
export function scopedPrisma(
  client: PrismaClient,
  view: TenantDatabase,
  principal: Principal & { tenantId: string },
): PrismaClient {
  const extended = client.$extends({
    query: {
      $allModels: {
        $allOperations: ({ model, operation, args }) => {
          const visible = VISIBILITY[model](principal);
          const read = READS.get(operation);
          if (visible === 'NONE' || read === undefined) throw new Error('Not readable for one tenant.');
          const { where, ...rest } = args as { where?: Condition };
          const own = where?.['AND'];
          const conditions = own === undefined ? [] : Array.isArray(own) ? (own as Condition[]) : [own as Condition];
          const seen = visible === 'ALL' ? args : { ...rest, where: { ...where, AND: [...conditions, visible] } };
          // Sent by the tenant's own client instead of the one that is extended.
          return view.read(async ({ prisma }) => {
            const delegate = (prisma as unknown as Delegates)[delegateOf(model)];
            return delegate?.[read]?.(seen);
          });
        },
      },
    },
  });
  return extended as unknown as PrismaClient;
}
