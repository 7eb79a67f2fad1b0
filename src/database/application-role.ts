import { createHash } from 'node:crypto';
import type { RunText } from './tenant-wall.js';

/** What the role of the server may do with a table that has no entry below. */
const EVERYTHING = ['DELETE', 'INSERT', 'SELECT', 'UPDATE'] as const;

type Privilege = (typeof EVERYTHING)[number];

/** Tables with which the server does less than everything, sorted as the catalogue is asked for them. */
const PRIVILEGES: Record<string, readonly Privilege[]> = {
  _prisma_migrations: ['SELECT'],
  audit_chain: ['INSERT', 'SELECT', 'UPDATE'],
  // What has served its time goes through `FUNCTIONS`.
  audit_event: ['INSERT', 'SELECT'],
  audit_key: ['INSERT', 'SELECT', 'UPDATE'],
  deauthorization_receipt: ['INSERT', 'SELECT'],
  deployment: ['INSERT', 'SELECT', 'UPDATE'],
  health_event_log: ['SELECT', 'UPDATE'],
  refresh_pace: ['INSERT', 'SELECT', 'UPDATE'],
  revocation: ['INSERT', 'SELECT', 'UPDATE'],
  revocation_receipt: ['INSERT', 'SELECT', 'UPDATE'],
  root_key: ['INSERT', 'SELECT'],
  tenant_deletion: ['INSERT', 'SELECT', 'UPDATE'],
  webhook_delivery_attempt: ['INSERT', 'SELECT'],
};

/** Made by a migration, run as the owner, and nobody else's to call. */
const FUNCTIONS = ['prune_audit_events(integer)', 'erase_audit_details(uuid, integer)'];

const quoted = (name: string) => `"${name.replaceAll('"', '""')}"`;

/** Each role has a policy of its own, so that servers of several roles do not shut each other out. */
const policyFor = (role: string) => `application_${createHash('sha256').update(role).digest('hex').slice(0, 12)}`;

interface Table extends Record<string, unknown> {
  name: string;
  /** What the role was granted, sorted; a privilege of single columns counts as one that it is not to have. */
  granted: string[];
  isWalled: boolean;
  /** Whether the policy that lets the role see every row is there, as it is to be. */
  isLetIn: boolean;
}

function statementsFor({ name, isWalled }: Table, role: string): string {
  const [table, to, policy] = [quoted(name), quoted(role), policyFor(role)];
  const privileges = PRIVILEGES[name] ?? EVERYTHING;
  return `
    REVOKE ALL ON ${table} FROM ${to};
    GRANT ${privileges.join(', ')} ON ${table} TO ${to};
    DROP POLICY IF EXISTS ${policy} ON ${table};
    ${isWalled ? `CREATE POLICY ${policy} ON ${table} TO ${to} USING (true) WITH CHECK (true);` : ''}`;
}

/**
 * Grants the role that the server works as what it needs, and nothing else: rows of every table, within the tables'
 * forced row-level security, but no table of its own, none to change, and of the audit trail no event to take away.
 * What is there already is left as it is, and so is a table that the role owns after all; for tables that are new, and
 * what a restored database lacks, it is the next start that grants. Run it as the owner, after the wall between tenants,
 * under the lock of migrations.
 */
export async function admitApplication(run: RunText, role: string): Promise<void> {
  const tables = (await run(
    `SELECT c.relname::text AS name, c.relrowsecurity AS "isWalled",
      ARRAY(SELECT a.privilege_type FROM aclexplode(c.relacl) a WHERE a.grantee = r.oid
        UNION ALL SELECT 'column' FROM pg_attribute t, aclexplode(t.attacl) a
        WHERE t.attrelid = c.oid AND a.grantee = r.oid ORDER BY 1) AS granted,
      EXISTS (SELECT 1 FROM pg_policy p WHERE p.polrelid = c.oid AND p.polname = $2 AND p.polcmd = '*'
        AND p.polpermissive AND p.polroles = ARRAY[r.oid] AND pg_get_expr(p.polqual, c.oid) = 'true'
        AND pg_get_expr(p.polwithcheck, c.oid) = 'true') AS "isLetIn"
    FROM pg_class c CROSS JOIN pg_roles r
    WHERE c.relnamespace = current_schema()::regnamespace AND c.relkind IN ('r', 'p') AND r.rolname = $1
      AND c.relowner <> r.oid AND pg_has_role(current_user, c.relowner, 'USAGE')
    ORDER BY c.relname`,
    [role, policyFor(role)],
  )) as Table[];
  for (const table of tables) {
    const privileges = PRIVILEGES[table.name] ?? EVERYTHING;
    const isGranted = table.granted.join() === privileges.join();
    if (!isGranted || table.isLetIn !== table.isWalled) await run(statementsFor(table, role));
  }
  const [schema] = await run(
    `SELECT current_schema()::text AS name, has_schema_privilege($1, current_schema(), 'USAGE') AS "isOpen"`,
    [role],
  );
  if (schema?.['isOpen'] !== true)
    await run(`GRANT USAGE ON SCHEMA ${quoted(String(schema?.['name']))} TO ${quoted(role)}`);
  for (const name of FUNCTIONS) {
    const [held] = await run(`SELECT has_function_privilege($1, $2, 'EXECUTE') AS "isHeld"`, [role, name]);
    if (held?.['isHeld'] !== true) await run(`GRANT EXECUTE ON FUNCTION ${name} TO ${quoted(role)}`);
  }
}
