import type { FrontendAction, Permission } from '../domain/principal.js';

/** Who may ask for a field. A server key needs one of `permissions`, a frontend session one of `actions`. */
export interface Rule {
  permissions: readonly Permission[];
  actions: readonly FrontendAction[];
  /** A server key that is restricted to a tenant may not. */
  global?: true;
  /** A server key needs all of `permissions`. */
  all?: true;
}

/** Whoever has been given the object may read it. */
export const PART = 'PART';
/** Everybody who is let in at all. */
export const ANYBODY = 'ANYBODY';
/** As the type of the thing demands, by `NODE_ACCESS`. */
export const BY_TYPE = 'BY_TYPE';

export type Access = Rule | typeof PART | typeof ANYBODY | typeof BY_TYPE;

const key = (...permissions: Permission[]): Rule => ({ permissions, actions: [] });
const globalKey = (...permissions: Permission[]): Rule => ({ permissions, actions: [], global: true });
const keyOfAll = (...permissions: Permission[]): Rule => ({ permissions, actions: [], all: true });
const rule = (permissions: Permission[], actions: FrontendAction[]): Rule => ({ permissions, actions });

const CONNECT: FrontendAction[] = ['CONNECT_INSTALLATION', 'CONNECT_USER'];
const readConnections = rule(['CONNECTIONS_READ'], ['READ_CONNECTIONS']);
const readTrips = rule(['CONNECTIONS_READ', 'CONNECTIONS_WRITE'], CONNECT);
const readApps = rule(['CONNECTIONS_READ', 'PROVIDER_APPS_WRITE'], [...CONNECT, 'READ_CONNECTIONS']);
const readAppSettings = key('CONNECTIONS_READ', 'PROVIDER_APPS_WRITE');
const writeConnections = key('CONNECTIONS_WRITE');
const readCredentials = key('CREDENTIALS_READ');
// One request may cover the connections of several tenants.
const readRevocations = globalKey('CONNECTIONS_READ', 'CONNECTIONS_WRITE');
const readReceipts = globalKey('AUDIT_READ');
const readEndpoints = key('CONNECTIONS_READ', 'TENANTS_WRITE');
const readDeliveries = key('CONNECTIONS_READ');
// Whoever names an endpoint gives it what may be read of connections.
const manageEndpoints = keyOfAll('TENANTS_WRITE', 'CONNECTIONS_READ');

const GRANT: Record<string, Access> = {
  id: PART,
  tenant: PART,
  app: PART,
  health: PART,
  credentialInfo: PART,
  grantedScopes: PART,
  missingScopes: PART,
  providerAccountId: PART,
  createdAt: PART,
  healthEvents: readConnections,
  revocation: readRevocations,
};

/**
 * Who may ask for what: an entry for each type, and for each field where a type is more than a part of what leads to it.
 * A field without an entry is refused, and keeps the server from starting.
 *
 * What a field answers is already limited to the caller's tenant and user; here it is only said who may ask at all.
 * Connections, edges and results (`…Connection`, `…Edge`, `…Success`, `…Error`) are parts and need no entry.
 */
export const ACCESS: Record<string, Record<string, Access> | typeof PART> = {
  Query: {
    viewer: ANYBODY,
    node: BY_TYPE,
    tenant: rule(['CONNECTIONS_READ', 'TENANTS_WRITE'], ['READ_CONNECTIONS']),
    tenants: key('CONNECTIONS_READ', 'TENANTS_WRITE'),
    providerApp: readApps,
    providerApps: readApps,
    installations: readConnections,
    userConnections: readConnections,
    authorizationSession: readTrips,
    healthEvents: readConnections,
    scope: ANYBODY,
    scopes: ANYBODY,
    credential: readCredentials,
    hostOfMeeting: readCredentials,
    localRecordingToken: readCredentials,
    zakToken: readCredentials,
    onBehalfOfToken: readCredentials,
    auditEvents: key('AUDIT_READ'),
    deauthorizationReceipts: readReceipts,
    serverKeys: key('KEYS_WRITE'),
    webhookEndpoints: readEndpoints,
  },
  Mutation: {
    createTenant: globalKey('TENANTS_WRITE'),
    updateTenant: key('TENANTS_WRITE'),
    deleteTenant: globalKey('TENANTS_WRITE'),
    rotateTenantKey: key('TENANTS_WRITE'),
    registerProviderApp: globalKey('PROVIDER_APPS_WRITE'),
    updateProviderApp: globalKey('PROVIDER_APPS_WRITE'),
    removeProviderApp: globalKey('PROVIDER_APPS_WRITE'),
    beginInstallation: rule(['CONNECTIONS_WRITE'], ['CONNECT_INSTALLATION']),
    beginAuthorization: rule(['CONNECTIONS_WRITE'], ['CONNECT_USER']),
    completeAuthorization: rule(['CONNECTIONS_WRITE'], CONNECT),
    connectServerToServer: writeConnections,
    importGrant: writeConnections,
    revokeInstallation: rule(['CONNECTIONS_WRITE'], ['REVOKE']),
    revokeUserConnection: rule(['CONNECTIONS_WRITE'], ['REVOKE']),
    revokeGrants: globalKey('CONNECTIONS_WRITE'),
    createSignedUrl: readCredentials,
    revokeSignedUrls: readCredentials,
    refreshGrant: writeConnections,
    checkGrant: writeConnections,
    createServerKey: key('KEYS_WRITE'),
    revokeServerKey: key('KEYS_WRITE'),
    createFrontendSession: key('SESSIONS_CREATE'),
    revokeFrontendSession: key('SESSIONS_CREATE'),
    createWebhookEndpoint: manageEndpoints,
    updateWebhookEndpoint: manageEndpoints,
    rotateWebhookEndpointSecret: manageEndpoints,
    deleteWebhookEndpoint: manageEndpoints,
    replayWebhookDeliveries: manageEndpoints,
  },
  Subscription: {
    healthChanged: readConnections,
    authorizationChanged: readTrips,
  },
  Tenant: {
    id: PART,
    externalId: PART,
    name: PART,
    createdAt: PART,
    allowedOrigins: key('CONNECTIONS_READ', 'TENANTS_WRITE', 'SESSIONS_CREATE'),
    installations: readConnections,
    userConnections: readConnections,
    healthEvents: readConnections,
    health: readConnections,
    key: key('CONNECTIONS_READ', 'TENANTS_WRITE'),
  },
  ProviderApp: {
    id: PART,
    provider: PART,
    name: PART,
    kind: PART,
    environment: PART,
    scopes: PART,
    clientId: readAppSettings,
    clientSecretSetAt: readAppSettings,
    webhookSecretSetAt: readAppSettings,
    redirectUri: readAppSettings,
    webhookUrl: readAppSettings,
    webhookValidatedAt: readAppSettings,
    setupUrl: readAppSettings,
    incident: readApps,
    installations: readConnections,
    userConnections: readConnections,
  },
  Grant: GRANT,
  Installation: { ...GRANT, installedBy: PART, userConnections: readConnections },
  UserConnection: { ...GRANT, installation: readConnections, externalUserId: PART, providerUser: PART },
  HealthEvent: PART,
  AuthorizationSession: PART,
  Credential: PART,
  ProviderToken: PART,
  SignedUrl: PART,
  Revocation: PART,
  RevocationReceipt: PART,
  AuditEvent: PART,
  DeauthorizationReceipt: PART,
  TenantDeletion: PART,
  ServerKey: PART,
  FrontendSession: PART,
  WebhookEndpoint: {
    id: PART,
    tenant: PART,
    url: PART,
    description: PART,
    status: PART,
    disabledAt: PART,
    disabledReason: PART,
    failingSince: PART,
    createdAt: PART,
    secret: readEndpoints,
    secretSetAt: PART,
    formerSecretRetiresAt: PART,
    deliveries: readDeliveries,
  },
  WebhookDelivery: PART,
  WebhookDeliveryAttempt: PART,
  WebhookReplay: PART,
  Viewer: PART,
  HealthSummary: PART,
  TenantKey: PART,
  ProviderAppIncident: PART,
  ProviderUser: PART,
  CredentialInfo: PART,
  Health: PART,
  Scope: PART,
  UnknownScope: PART,
  PageInfo: PART,
  Node: PART,
};

/** Who may look a thing up by its id, for every type that `node` knows. */
export const NODE_ACCESS: Record<string, Access> = {
  Tenant: rule(['CONNECTIONS_READ', 'TENANTS_WRITE'], ['READ_CONNECTIONS']),
  ProviderApp: readApps,
  Installation: readConnections,
  UserConnection: readConnections,
  HealthEvent: readConnections,
  AuthorizationSession: readTrips,
  Revocation: readRevocations,
  AuditEvent: key('AUDIT_READ'),
  DeauthorizationReceipt: readReceipts,
  TenantDeletion: globalKey('TENANTS_WRITE'),
  ServerKey: key('KEYS_WRITE'),
  WebhookEndpoint: readEndpoints,
  WebhookDelivery: readDeliveries,
  Scope: ANYBODY,
};
