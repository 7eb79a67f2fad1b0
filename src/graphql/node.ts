const UUID = /^[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}$/i;

/** Types whose ids are rows; a scope's id is its name. */
const ROW_TYPES: ReadonlySet<string> = new Set([
  'Tenant',
  'ProviderApp',
  'Installation',
  'UserConnection',
  'HealthEvent',
  'DeauthorizationReceipt',
  'Revocation',
  'TenantDeletion',
  'AuthorizationSession',
  'ServerKey',
  'WebhookEndpoint',
  'WebhookDelivery',
]);

export const isUuid = (value: string): boolean => UUID.test(value);

/** Whether an id has the form of one that could exist, so that it may be looked up. */
export const isKnownNode = (typename: string, id: string): boolean =>
  typename === 'AuditEvent'
    ? /^[0-9a-f-]{36}:\d{1,9}$/.test(id) && isUuid(id.slice(0, 36))
    : ROW_TYPES.has(typename)
      ? isUuid(id)
      : typename === 'Scope' && id !== '';
