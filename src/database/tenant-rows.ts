import type { RunText } from './tenant-wall.js';

/**
 * What the rules below run. They look at a row when it is made, or when what they look at is changed: a row that others
 * name stays with its tenant, so what held then holds on.
 *
 * Not foreign keys that hold the tenant. For grants those would need one more index on the table of grants and on that
 * of credentials, which are written with every refresh; a server key or an endpoint may belong to no tenant, which such
 * a key cannot say; a delivery has the tenant of its event; and an authorization session outlives what it names.
 *
 * @param schema quoted, where the tables are.
 */
const functions = (schema: string) => `
  CREATE OR REPLACE FUNCTION require_tenant_of_grant() RETURNS trigger LANGUAGE plpgsql AS $$
  BEGIN
    IF NOT EXISTS (SELECT 1 FROM provider_grant WHERE id = NEW.grant_id AND tenant_id = NEW.tenant_id) THEN
      RAISE foreign_key_violation USING MESSAGE = 'The grant is not of this tenant.';
    END IF;
    RETURN NEW;
  END $$;
  CREATE OR REPLACE FUNCTION require_tenant_of_server_key() RETURNS trigger LANGUAGE plpgsql AS $$
  BEGIN
    IF NOT EXISTS (SELECT 1 FROM server_key
        WHERE id = NEW.server_key_id AND (tenant_id = NEW.tenant_id OR tenant_id IS NULL)) THEN
      RAISE foreign_key_violation USING MESSAGE = 'The server key is not of this tenant.';
    END IF;
    RETURN NEW;
  END $$;
  -- As the owner: row-level security hides from a tenant that a session is another's.
  CREATE OR REPLACE FUNCTION require_tenant_of_frontend_session() RETURNS trigger LANGUAGE plpgsql SECURITY DEFINER
  SET search_path = ${schema}, pg_temp AS $$
  BEGIN
    IF EXISTS (SELECT 1 FROM frontend_session WHERE id = NEW.frontend_session_id AND tenant_id <> NEW.tenant_id) THEN
      RAISE foreign_key_violation USING MESSAGE = 'The frontend session is not of this tenant.';
    END IF;
    RETURN NEW;
  END $$;
  REVOKE ALL ON FUNCTION require_tenant_of_frontend_session() FROM PUBLIC;
  CREATE OR REPLACE FUNCTION require_tenant_of_event() RETURNS trigger LANGUAGE plpgsql AS $$
  BEGIN
    IF NOT EXISTS (SELECT 1 FROM webhook_endpoint endpoint JOIN health_event event ON event.id = NEW.event_id
        WHERE endpoint.id = NEW.endpoint_id
          AND (endpoint.tenant_id = event.tenant_id OR endpoint.tenant_id IS NULL)) THEN
      RAISE foreign_key_violation USING MESSAGE = 'The event is not of the tenant of the endpoint.';
    END IF;
    RETURN NULL;
  END $$;
  CREATE OR REPLACE FUNCTION keep_tenant() RETURNS trigger LANGUAGE plpgsql AS $$
  BEGIN
    RAISE restrict_violation USING MESSAGE = 'This row stays with its tenant.';
  END $$;`;

interface Rule {
  name: string;
  /** When it runs, up to the table. */
  before: string;
  /** What it runs for each row of the table. */
  run: string;
}

const OF_GRANT: Rule = {
  name: 'tenant_of_grant',
  before: 'BEFORE INSERT OR UPDATE OF grant_id, tenant_id',
  run: 'WHEN (NEW.grant_id IS NOT NULL AND NEW.tenant_id IS NOT NULL) EXECUTE FUNCTION require_tenant_of_grant()',
};

const KEEPS_TENANT: Rule = {
  name: 'keep_tenant',
  before: 'BEFORE UPDATE OF tenant_id',
  run: 'WHEN (OLD.tenant_id IS DISTINCT FROM NEW.tenant_id) EXECUTE FUNCTION keep_tenant()',
};

/** Rules of tables for other references than to grants, and of those that are referred to. */
const RULES: Readonly<Record<string, readonly Rule[]>> = {
  provider_grant: [KEEPS_TENANT],
  server_key: [KEEPS_TENANT],
  health_event: [KEEPS_TENANT],
  webhook_endpoint: [KEEPS_TENANT],
  frontend_session: [
    KEEPS_TENANT,
    {
      name: 'tenant_of_server_key',
      before: 'BEFORE INSERT OR UPDATE OF server_key_id, tenant_id',
      run: 'WHEN (NEW.server_key_id IS NOT NULL) EXECUTE FUNCTION require_tenant_of_server_key()',
    },
  ],
  authorization_session: [
    {
      name: 'tenant_of_frontend_session',
      before: 'BEFORE INSERT OR UPDATE OF frontend_session_id, tenant_id',
      run: 'WHEN (NEW.frontend_session_id IS NOT NULL) EXECUTE FUNCTION require_tenant_of_frontend_session()',
    },
  ],
  webhook_delivery: [
    {
      name: 'tenant_of_event',
      // An event and its deliveries are made by one statement.
      before: 'AFTER INSERT OR UPDATE OF endpoint_id, event_id',
      run: 'EXECUTE FUNCTION require_tenant_of_event()',
    },
  ],
};

interface Table extends Record<string, unknown> {
  name: string;
  schema: string;
  /** Whether it has columns `grant_id` and `tenant_id`. */
  namesGrant: boolean;
  /** Names of the rules that it has. */
  rules: string[];
}

/**
 * Makes the database refuse a row of one tenant that names a row of another's: for every table with columns `grant_id`
 * and `tenant_id`, and as `RULES` says. Tables and rules that are new get theirs at the next start. Run it under the lock
 * of migrations.
 *
 * Beside the migrations, which are split at semicolons before they are sent and so can hold no function.
 */
export async function bindRowsToTenants(run: RunText): Promise<void> {
  const tables = (await run(`
    SELECT c.relname::text AS name, quote_ident(current_schema()) AS schema,
      2 = (SELECT count(*) FROM pg_attribute a WHERE a.attrelid = c.oid AND NOT a.attisdropped
        AND a.attname IN ('tenant_id', 'grant_id')) AS "namesGrant",
      ARRAY(SELECT t.tgname::text FROM pg_trigger t WHERE t.tgrelid = c.oid) AS rules
    FROM pg_class c WHERE c.relnamespace = current_schema()::regnamespace AND c.relkind IN ('r', 'p')
    ORDER BY c.relname`)) as Table[];
  const missing = tables.flatMap(({ name: table, namesGrant, rules }) =>
    [...(namesGrant ? [OF_GRANT] : []), ...(RULES[table] ?? [])]
      .filter(({ name }) => !rules.includes(name))
      .map((rule) => `CREATE OR REPLACE TRIGGER ${rule.name} ${rule.before} ON "${table}" FOR EACH ROW ${rule.run};`),
  );
  if (missing.length === 0) return;
  await run(functions(tables[0]?.schema ?? ''));
  // Each by itself: holding one table while it waits for the next, it could deadlock with a server that runs meanwhile.
  for (const rule of missing) await run(rule);
}
