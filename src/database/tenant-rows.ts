import type { RunText } from './tenant-wall.js';

/**
 * The same for every table that names a grant and a tenant. Not foreign keys over both columns: those would need one
 * more index on the table of grants and on that of credentials, which are written with every refresh, while this looks
 * at a row when it is made. A grant keeps its tenant, so what held then holds on.
 */
const FUNCTIONS = `
  CREATE OR REPLACE FUNCTION require_tenant_of_grant() RETURNS trigger LANGUAGE plpgsql AS $$
  BEGIN
    IF NOT EXISTS (SELECT 1 FROM provider_grant WHERE id = NEW.grant_id AND tenant_id = NEW.tenant_id) THEN
      RAISE foreign_key_violation USING MESSAGE = 'The grant is not of this tenant.';
    END IF;
    RETURN NEW;
  END $$;
  CREATE OR REPLACE FUNCTION keep_tenant() RETURNS trigger LANGUAGE plpgsql AS $$
  BEGIN
    RAISE restrict_violation USING MESSAGE = 'A grant stays with its tenant.';
  END $$;
  CREATE OR REPLACE TRIGGER keep_tenant BEFORE UPDATE OF tenant_id ON provider_grant
    FOR EACH ROW WHEN (OLD.tenant_id IS DISTINCT FROM NEW.tenant_id) EXECUTE FUNCTION keep_tenant();`;

const ruleFor = (table: string) => `
  CREATE OR REPLACE TRIGGER tenant_of_grant BEFORE INSERT OR UPDATE OF grant_id, tenant_id ON "${table}"
    FOR EACH ROW WHEN (NEW.grant_id IS NOT NULL AND NEW.tenant_id IS NOT NULL)
    EXECUTE FUNCTION require_tenant_of_grant();`;

/**
 * Makes the database refuse a row that names a grant of one tenant and belongs to another, for every table with columns
 * `grant_id` and `tenant_id`; those that are new get the rule at the next start. Run it under the lock of migrations.
 *
 * Beside the migrations, which are split at semicolons before they are sent and so can hold no function.
 */
export async function bindRowsToTenants(run: RunText): Promise<void> {
  const missing = await run(`
    SELECT c.relname::text AS name FROM pg_class c
    WHERE c.relnamespace = current_schema()::regnamespace AND c.relkind IN ('r', 'p')
      AND 2 = (SELECT count(*) FROM pg_attribute a
        WHERE a.attrelid = c.oid AND NOT a.attisdropped AND a.attname IN ('tenant_id', 'grant_id'))
      AND NOT EXISTS (SELECT 1 FROM pg_trigger t WHERE t.tgrelid = c.oid AND t.tgname = 'tenant_of_grant')`);
  if (missing.length === 0) return;
  await run(`${FUNCTIONS} ${missing.map(({ name }) => ruleFor(String(name))).join('')}`);
}
