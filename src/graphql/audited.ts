import { unwrapError } from '@pothos/plugin-errors';
import {
  getNamedType,
  GraphQLError,
  type GraphQLField,
  type GraphQLFieldResolver,
  type GraphQLObjectType,
  type GraphQLSchema,
  isObjectType,
} from 'graphql';
import sql from 'sql-template-tag';
import { actingAs, type AuditedOperation, auditPrincipalOf } from '../domain/audit.js';
import { type CredentialRead, noteForeign, type RefusedAttempt } from '../domain/audit-read-log.js';
import { decodeGlobalId } from './builder.js';
import { type Context, contextWith } from './context.js';
import { isUuid } from './node.js';

interface MutationRule {
  action: string;
  /** What it does is done by parts that work for all callers together: its event is committed before. */
  before?: true;
}

/** What each mutation is called in the audit trail. A mutation without an entry keeps the server from starting. */
export const AUDITED_MUTATIONS: Readonly<Record<string, MutationRule>> = {
  createTenant: { action: 'tenant.created' },
  updateTenant: { action: 'tenant.updated' },
  deleteTenant: { action: 'tenant.deletion_requested' },
  rotateTenantKey: { action: 'tenant_key.rotated' },
  registerProviderApp: { action: 'provider_app.registered' },
  updateProviderApp: { action: 'provider_app.updated' },
  removeProviderApp: { action: 'provider_app.removed' },
  beginInstallation: { action: 'authorization.begun' },
  beginAuthorization: { action: 'authorization.begun' },
  completeAuthorization: { action: 'authorization.code_redeemed' },
  connectServerToServer: { action: 'grant.connected' },
  importGrant: { action: 'grant.imported' },
  revokeInstallation: { action: 'grant.revoked' },
  revokeUserConnection: { action: 'grant.revoked' },
  revokeGrants: { action: 'revocation.requested' },
  createSignedUrl: { action: 'signed_url.created' },
  revokeSignedUrls: { action: 'signed_urls.revoked' },
  refreshGrant: { action: 'grant.refresh_requested', before: true },
  checkGrant: { action: 'grant.check_requested', before: true },
  createServerKey: { action: 'key.created' },
  revokeServerKey: { action: 'key.revoked' },
  createFrontendSession: { action: 'frontend_session.created' },
  createWebhookEndpoint: { action: 'webhook_endpoint.created' },
  updateWebhookEndpoint: { action: 'webhook_endpoint.updated' },
  rotateWebhookEndpointSecret: { action: 'webhook_endpoint.secret_rotated' },
  deleteWebhookEndpoint: { action: 'webhook_endpoint.deleted' },
  replayWebhookDeliveries: { action: 'webhook_deliveries.replayed' },
  revokeFrontendSession: { action: 'frontend_session.revoked' },
};

/** Queries that hand out a token, and what each is called. One that answers a Secret and has no entry is not served. */
const AUDITED_READS: Readonly<Record<string, CredentialRead['action']>> = {
  credential: 'credential.read',
  localRecordingToken: 'provider_token.minted',
  zakToken: 'provider_token.minted',
  onBehalfOfToken: 'provider_token.minted',
};

type About = AuditedOperation['about'];

const textOf = (value: unknown): string | null => (typeof value === 'string' && !value.includes('\0') ? value : null);

/**
 * What an operation is about, by its arguments, before it begins: what it removes cannot be looked up any more later.
 * Whoever is restricted to a tenant leaves their events there, also where they ask for what they do not reach.
 */
async function aboutOf(ctx: Context, args: Record<string, unknown>): Promise<About> {
  const input = (args['input'] ?? {}) as Record<string, unknown>;
  const { typename, id } = decodeGlobalId(
    textOf(input['id'] ?? input['grantId'] ?? input['appId'] ?? input['endpointId']) ?? '',
  );
  const rowId = isUuid(id) ? id : null;
  const isGrant = rowId !== null && (typename === 'Installation' || typename === 'UserConnection');
  const about = { grantId: isGrant ? rowId : null, subject: rowId === null || isGrant ? null : `${typename}:${rowId}` };
  if (ctx.principal.tenantId !== null) return { ...about, tenantId: ctx.principal.tenantId };
  const externalId = textOf(input['tenantId']);
  if (externalId === null && rowId === null) return { ...about, tenantId: null };
  const [owner] = await ctx.db.query<{ tenantId: string }>(sql`
    SELECT id AS "tenantId" FROM tenant WHERE external_id = ${externalId}
    UNION ALL SELECT tenant_id FROM provider_grant WHERE id = ${rowId}::uuid
    UNION ALL SELECT tenant_id FROM server_key WHERE id = ${rowId}::uuid AND tenant_id IS NOT NULL
    UNION ALL SELECT tenant_id FROM webhook_endpoint WHERE id = ${rowId}::uuid AND tenant_id IS NOT NULL
    UNION ALL SELECT tenant_id FROM frontend_session WHERE id = ${rowId}::uuid LIMIT 1`);
  return { ...about, tenantId: owner?.tenantId ?? null };
}

/** Also one that the errors plugin has made the answer of a field: it is no instance of its class any more. */
const isFailure = (result: unknown): result is Error =>
  result instanceof Error ||
  (typeof result === 'object' &&
    result !== null &&
    typeof (result as { [unwrapError]?: unknown })[unwrapError] === 'function');

type Field = GraphQLField<unknown, Context, Record<string, unknown>>;
type Resolve = GraphQLFieldResolver<unknown, Context, Record<string, unknown>>;

/**
 * Runs a mutation with a database whose first transaction records it. One that commits nothing because there was nothing
 * to change leaves its event in a transaction of its own; one that was refused is counted with others like it.
 */
function auditMutation(field: Field, { action, before }: MutationRule): void {
  const { resolve } = field;
  if (resolve === undefined) throw new Error(`The field ${field.name} has no resolver.`);
  field.resolve = async (parent, args, ctx, info) => {
    const principal = auditPrincipalOf(ctx.principal, ctx.clientAddress);
    const operation: AuditedOperation = { action, about: await aboutOf(ctx, args), recorded: false };
    // What is done for a tenant takes up the tenant's connections, whoever asks for it.
    const { tenantId } = operation.about;
    const shared = typeof tenantId === 'string' ? ctx.db.shareOf(tenantId) : ctx.db;
    const db = actingAs(shared, { principal, operation });
    if (before) await db.transaction(async () => undefined);
    const result: unknown = await resolve(parent, args, contextWith(ctx, db), info);
    if (operation.recorded) return result;
    if (isFailure(result))
      ctx.reads.refused({ tenantId: null, ...operation.about, action, principal, reason: result.name });
    else await db.transaction(async () => undefined);
    return result;
  };
}

/** A token with where it is from; `version` where it is a stored one. */
type Handed = Pick<CredentialRead, 'tenantId' | 'grantId'> & { version?: number };

/** Records the token that is about to be answered, and in strict mode waits for that. */
function auditRead(field: Field, action: CredentialRead['action']): void {
  const { resolve } = field;
  if (resolve === undefined) throw new Error(`The field ${field.name} has no resolver.`);
  const handOut = (result: unknown, ctx: Context): unknown => {
    const principal = auditPrincipalOf(ctx.principal, ctx.clientAddress);
    if (isFailure(result)) {
      noteForeign(ctx.reads, { action, tenantId: ctx.principal.tenantId, principal, reason: result.name });
      return result;
    }
    const { tenantId, grantId, version = null } = result as Handed;
    const noted = ctx.reads.note({ action, tenantId, grantId, credentialVersion: version, principal });
    return noted === undefined ? result : noted.then(() => result);
  };
  field.resolve = (parent, args, ctx, info) => {
    const result: unknown = resolve(parent, args, ctx, info);
    return result instanceof Promise ? result.then((answer) => handOut(answer, ctx)) : handOut(result, ctx);
  };
}

const codeOf = (error: unknown): unknown => (error instanceof GraphQLError ? error.extensions['code'] : undefined);

type Asked = Pick<RefusedAttempt, 'action' | 'subject'>;

/**
 * Counts what a principal may not do at all, in its tenant's chain. Nothing is looked up for it, and nobody waits for it:
 * access rules refuse before there is a promise.
 */
const countingForbidden =
  (resolve: Resolve, asked: Asked): Resolve =>
  (parent, args, ctx, info) => {
    try {
      return resolve(parent, args, ctx, info);
    } catch (error) {
      if (codeOf(error) === 'FORBIDDEN') {
        const principal = auditPrincipalOf(ctx.principal, ctx.clientAddress);
        ctx.reads.refused({ ...asked, tenantId: ctx.principal.tenantId, principal, reason: 'FORBIDDEN' });
      }
      throw error;
    }
  };

function countForbidden(field: Field, asked: Asked): void {
  const { resolve } = field;
  if (resolve === undefined) throw new Error(`The field ${field.name} has no resolver.`);
  field.resolve = countingForbidden(resolve, asked);
}

/** Of a subscription only its beginning is an attempt: at each event its caller has asked for nothing. */
function countForbiddenStart(field: Field, asked: Asked): void {
  const { subscribe } = field;
  if (subscribe === undefined) throw new Error(`The field ${field.name} cannot be subscribed to.`);
  field.subscribe = countingForbidden(subscribe, asked);
}

/** Whether an answer of the field may hold a secret. */
function answersSecret(field: Field, schema: GraphQLSchema): boolean {
  const named = getNamedType(field.type);
  const types = 'getTypes' in named ? named.getTypes() : [named];
  return types.some(
    (type) =>
      isObjectType(type) &&
      Object.values(type.getFields()).some(({ type: part }) => getNamedType(part) === schema.getType('Secret')),
  );
}

const rootFields = (type: GraphQLObjectType | null | undefined) => Object.values(type?.getFields() ?? {}) as Field[];

/** Mutations, and queries that hand out secrets, that nobody has thought about. */
export function fieldsWithoutAudit(schema: GraphQLSchema): string[] {
  const mutations = Object.keys(schema.getMutationType()?.getFields() ?? {});
  return [
    ...mutations.filter((name) => !Object.hasOwn(AUDITED_MUTATIONS, name)).map((name) => `Mutation.${name}`),
    ...rootFields(schema.getQueryType())
      .filter((field) => answersSecret(field, schema) && !Object.hasOwn(AUDITED_READS, field.name))
      .map(({ name }) => `Query.${name}`),
  ];
}

/** The field and its rule, for every entry that the schema has a field for. */
function* fieldsOf<T>(type: GraphQLObjectType | null | undefined, rules: Readonly<Record<string, T>>) {
  const fields = type?.getFields() ?? {};
  for (const [name, rule] of Object.entries(rules)) {
    if (fields[name] !== undefined) yield [fields[name] as Field, rule] as const;
  }
}

/**
 * Puts the audit trail around every mutation and every query that hands out a token.
 *
 * @throws where one has no entry: what nobody has thought about is not served.
 */
export function audited(schema: GraphQLSchema): GraphQLSchema {
  const without = fieldsWithoutAudit(schema);
  if (without.length > 0) throw new Error(`No audit rule for ${without.join(', ')}.`);
  for (const [field, rule] of fieldsOf(schema.getMutationType(), AUDITED_MUTATIONS)) auditMutation(field, rule);
  for (const [field, action] of fieldsOf(schema.getQueryType(), AUDITED_READS)) auditRead(field, action);
  return schema;
}

/**
 * Counts what the access rules refuse of every operation. Goes around a schema that has its rules. What is read has one
 * action for all fields but tokens, so that whoever tries many leaves no more events than who tries one.
 */
export function withRefusals(schema: GraphQLSchema): GraphQLSchema {
  for (const [field, { action }] of fieldsOf(schema.getMutationType(), AUDITED_MUTATIONS))
    countForbidden(field, { action });
  for (const field of rootFields(schema.getQueryType())) {
    const action = AUDITED_READS[field.name];
    countForbidden(field, action === undefined ? { action: 'query.refused', subject: field.name } : { action });
  }
  for (const field of rootFields(schema.getSubscriptionType()))
    countForbiddenStart(field, { action: 'subscription.refused', subject: field.name });
  return schema;
}
