import { createHash } from 'node:crypto';

/** The role that statements for one tenant run as. It owns nothing and cannot log in. */
export const TENANT_ROLE = 'latchkey_tenant';

/** The tenant that a transaction is for; no row has the null that it is outside of one. */
const CURRENT_TENANT = `nullif(current_setting('latchkey.tenant_id', true), '')::uuid`;

const UUID = /^[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}$/i;

/** What begins a transaction for one tenant, as one message. Both settings end with the transaction. */
export function beginFor(tenantId: string, mode: 'READ ONLY' | 'READ WRITE'): string {
  if (!UUID.test(tenantId)) throw new Error('Not the row of a tenant.');
  return `BEGIN ${mode}; SET LOCAL ROLE ${TENANT_ROLE}; SET LOCAL latchkey.tenant_id = '${tenantId}'`;
}

interface Wall {
  /** Which rows are the current tenant's. Without one: those whose `tenant_id` is. */
  condition?: string;
  /** What the tenant's role may do with these rows. Without any: read them. */
  privileges?: readonly string[];
}

/**
 * Tables whose wall is another than that of any table with a column `tenant_id`, which needs no entry: its rows are
 * the tenant's to read and nobody else's.
 */
const WALLS: Record<string, Wall> = {
  tenant: { condition: `id = ${CURRENT_TENANT}`, privileges: ['SELECT', 'UPDATE (name, allowed_origins)'] },
  // An app serves many tenants, so each may know it; its secrets are no tenant's to read.
  provider_app: { condition: 'true', privileges: ['SELECT unsealed'] },
  provider_revocation: { privileges: [] },
  hosted_meeting: { privileges: [] },
  meeting_listing: { privileges: [] },
  tenant_deletion: { privileges: [] },
  authorization_session: { privileges: ['SELECT', 'INSERT'] },
  frontend_session: { privileges: ['SELECT', 'INSERT', 'DELETE'] },
  server_key: { privileges: ['SELECT', 'INSERT', 'DELETE'] },
  tenant_key: { privileges: ['SELECT', 'INSERT', 'UPDATE'] },
  audit_event: { condition: `chain_id = ${CURRENT_TENANT}` },
  webhook_delivery: { condition: 'EXISTS (SELECT 1 FROM webhook_endpoint e WHERE e.id = endpoint_id)' },
  webhook_delivery_attempt: { condition: 'EXISTS (SELECT 1 FROM webhook_delivery d WHERE d.id = delivery_id)' },
  url_signing_key: { privileges: ['SELECT', 'INSERT', 'UPDATE'] },
};

/** Tables that hold nothing of a tenant's, and why. The tenant's role may do nothing with them. */
export const GLOBAL_TABLES: Readonly<Record<string, string>> = {
  _prisma_migrations: 'Which migrations were applied.',
  audit_chain: 'Where each chain of audit events stands; written by the owner alone, at the end of a transaction.',
  audit_key: 'The secret that the keys of all chains are derived from.',
  deployment: 'Which deployment the database belongs to.',
  refresh_canary: 'The refresh of each app that is tried first after an adoption.',
  health_event_log: 'How far the order of all events has come; holds none.',
  root_key: 'Recognises the root keys of the whole deployment.',
  rate_usage: 'Counts of requests, for seconds, by what they are counted for.',
  refresh_pace: 'The pace of an app, which all tenants share.',
  provider_account: "The provider's rate limits of an account, which all tenants share.",
  webhook_event: 'Recognises what the provider has delivered to an app; says nothing of whom it concerned.',
  deauthorization_receipt: 'Proof of what was done for a person whose data is removed; says nothing of whom.',
  revocation: 'A request that may cover grants of several tenants; only keys of all tenants are shown it.',
  revocation_receipt: 'Belongs to a revocation.',
};

/** The wall cannot be raised: somebody who may make roles must do it once. */
export class TenantRoleError extends Error {
  constructor(problem: string) {
    super(
      `${problem} Run this once as a role that may, then start again: CREATE ROLE ${TENANT_ROLE} NOLOGIN NOINHERIT; ` +
        `GRANT ${TENANT_ROLE} TO <the role of DATABASE_URL>; on PostgreSQL 16 and later WITH INHERIT FALSE, SET TRUE. ` +
        'Where that is not possible, LATCHKEY_ROW_LEVEL_SECURITY=0 goes without.',
    );
    this.name = 'TenantRoleError';
  }
}

/** Runs one statement, or several without parameters, which are done all or none. */
export type RunText = (text: string, values?: unknown[]) => Promise<Record<string, unknown>[]>;

const codeOf = (error: unknown) => (error as { code?: unknown }).code;

/** Somebody else made the same change at the same time: roles belong to all databases of a server. */
const CONCURRENT = new Set<unknown>(['42710', '23505', 'XX000']);
const FORBIDDEN = '42501';
const ATTEMPTS = 10;

/** @param member whose statements become the role's; null: the present role's. */
async function makeRole(run: RunText, member: string | null): Promise<void> {
  const [state] = await run(
    `SELECT current_setting('server_version_num')::int >= 160000 AS "canSet",
      (SELECT NOT (rolsuper OR rolbypassrls OR rolcreaterole OR rolcreatedb OR rolcanlogin)
          AND NOT EXISTS (SELECT 1 FROM pg_auth_members m WHERE m.member = r.oid)
          AND NOT EXISTS (SELECT 1 FROM pg_class c WHERE c.relowner = r.oid)
        FROM pg_roles r WHERE rolname = $1) AS "isHarmless"`,
    [TENANT_ROLE],
  );
  if (state?.['isHarmless'] === false) {
    throw new TenantRoleError(
      `The role ${TENANT_ROLE} may do more than it must, so that row-level security may not bind it.`,
    );
  }
  if (state?.['isHarmless'] === null) await run(`CREATE ROLE ${TENANT_ROLE} NOLOGIN NOINHERIT`);
  const privilege = state?.['canSet'] === true ? 'SET' : 'MEMBER';
  const [found] = await run(
    `SELECT pg_has_role(coalesce($3::text, current_user)::name, $1::name, $2) AS "isMember",
      coalesce(quote_ident($3::text), 'CURRENT_USER') AS member`,
    [TENANT_ROLE, privilege, member],
  );
  if (found?.['isMember'] === true) return;
  const options = privilege === 'SET' ? 'WITH INHERIT FALSE, SET TRUE' : '';
  await run(`GRANT ${TENANT_ROLE} TO ${String(found?.['member'])} ${options}`);
}

async function ensureRole(run: RunText, member: string | null): Promise<void> {
  for (let attempt = 1; ; attempt += 1) {
    try {
      return await makeRole(run, member);
    } catch (error) {
      if (codeOf(error) === FORBIDDEN) throw new TenantRoleError(`The role ${TENANT_ROLE} cannot be made or used.`);
      if (!CONCURRENT.has(codeOf(error)) || attempt === ATTEMPTS) throw error;
    }
  }
}

interface Table extends Record<string, unknown> {
  name: string;
  columns: string[];
  /** What the present wall was made from; null: there is none. */
  mark: string | null;
  /** Whether the policy for everything but tenants binds the present role. */
  isOurs: boolean;
}

/** The columns of a row that are not sealed. */
const unsealed = (columns: readonly string[]) =>
  columns.filter((name) => !name.startsWith('sealed_')).map((name) => `"${name}"`);

function statementsFor({ name, columns }: Table): string {
  const { condition = `tenant_id = ${CURRENT_TENANT}`, privileges = ['SELECT'] } = WALLS[name] ?? {};
  const grants = privileges.map((privilege) => {
    const what = privilege === 'SELECT unsealed' ? `SELECT (${unsealed(columns).join(', ')})` : privilege;
    return `GRANT ${what} ON "${name}" TO ${TENANT_ROLE};`;
  });
  return `
    ALTER TABLE "${name}" ENABLE ROW LEVEL SECURITY;
    ALTER TABLE "${name}" FORCE ROW LEVEL SECURITY;
    DROP POLICY IF EXISTS tenant ON "${name}";
    CREATE POLICY tenant ON "${name}" TO ${TENANT_ROLE} USING (${condition}) WITH CHECK (${condition});
    DROP POLICY IF EXISTS system ON "${name}";
    CREATE POLICY system ON "${name}" TO CURRENT_USER USING (true) WITH CHECK (true);
    REVOKE ALL ON "${name}" FROM ${TENANT_ROLE};
    ${grants.join('\n    ')}`;
}

/**
 * Raises the wall between tenants in the database itself, where it does not stand yet: row-level security for every
 * table with a column `tenant_id`, and those that `WALLS` names, for a role that owns none of them.
 *
 * Tables that are new get theirs at the next start. Whoever owns the tables, which is what jobs and keys of all tenants
 * use, reads and writes as before. Run it under the lock of migrations.
 *
 * @param member the role that the server works as, where that is not the present one.
 * @throws {TenantRoleError} the role is not there and may not be made, or is one that would not be bound.
 */
export async function raiseTenantWall(run: RunText, member: string | null = null): Promise<void> {
  await ensureRole(run, member);
  const tables = (await run(`
    SELECT c.relname::text AS name,
      ARRAY(SELECT attname::text FROM pg_attribute
        WHERE attrelid = c.oid AND attnum > 0 AND NOT attisdropped ORDER BY attnum) AS columns,
      CASE WHEN c.relrowsecurity AND c.relforcerowsecurity THEN (
        SELECT obj_description(oid, 'pg_policy') FROM pg_policy WHERE polrelid = c.oid AND polname = 'tenant') END AS mark,
      EXISTS (SELECT 1 FROM pg_policy p CROSS JOIN LATERAL unnest(p.polroles) AS role
        WHERE p.polrelid = c.oid AND p.polname = 'system' AND pg_has_role(current_user, role, 'USAGE')) AS "isOurs"
    FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
    WHERE n.nspname = current_schema() AND c.relkind IN ('r', 'p') ORDER BY c.relname`)) as Table[];
  for (const table of tables) {
    if (!table.columns.includes('tenant_id') && WALLS[table.name] === undefined) continue;
    const statements = statementsFor(table);
    const mark = createHash('sha256').update(statements).digest('hex').slice(0, 16);
    if (table.mark === mark && table.isOurs) continue;
    // One transaction, so that a server which runs meanwhile is never without the policy that lets it in.
    await run(`${statements} COMMENT ON POLICY tenant ON "${table.name}" IS '${mark}'`);
  }
}
