import sql from 'sql-template-tag';
import type { Sql } from './database.js';

/** What a role may do beyond reading and writing rows. */
export interface RolePowers {
  role: string;
  /** In words, the greatest first; empty: it owns nothing, and can change no more than rows. */
  powers: string[];
}

/** Looks at the role of a connection; no rights beyond those of every role. */
export async function readRolePowers(db: Sql): Promise<RolePowers> {
  const [found] = await db.query<{ role: string } & Record<string, boolean>>(sql`
    SELECT rolname::text AS role, rolsuper AS "is superuser", rolbypassrls AS "bypasses row-level security",
      EXISTS (SELECT 1 FROM pg_class c WHERE c.relnamespace = current_schema()::regnamespace
        AND c.relkind IN ('r', 'p') AND pg_has_role(r.oid, c.relowner, 'MEMBER')) AS "owns the tables",
      rolcreaterole AS "makes roles", rolcreatedb AS "makes databases", rolreplication AS "replicates",
      coalesce(has_schema_privilege(r.oid, current_schema()::regnamespace::oid, 'CREATE'), false) AS "makes tables",
      has_database_privilege(r.oid, current_database(), 'CREATE') AS "makes schemas",
      has_database_privilege(r.oid, current_database(), 'TEMPORARY') AS "makes temporary tables"
    FROM pg_roles r WHERE rolname = current_user`);
  const { role = '', ...powers } = found ?? {};
  return { role: String(role), powers: Object.keys(powers).filter((name) => powers[name as never] === true) };
}
