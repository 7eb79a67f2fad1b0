import sql from 'sql-template-tag';
import type { Config } from '../config.js';
import type { Sql } from '../database/database.js';
import { readRolePowers } from '../database/role-powers.js';
import { lookAt } from './doctor-connection.js';
import { failed, type Finding, passed, warned } from './doctor-finding.js';

const PAGE = 'see docs/operations/database.md, "Roles of the database"';

/** What the role that the server works as may do beyond what it needs. */
export async function examineRole(db: Sql, { migrationDatabaseUrl }: Config): Promise<Finding> {
  const { role, powers } = await readRolePowers(db);
  if (powers.length === 0) return passed('database role', `${role} owns nothing and changes no more than rows`);
  const detail = `${role}: ${powers.join(', ')}`;
  if (migrationDatabaseUrl !== null)
    return warned('database role', detail, `Take from it what it does not need: ${PAGE}.`);
  const remedy = `Give DATABASE_URL a role that owns nothing, and the owner to LATCHKEY_MIGRATION_DATABASE_URL: ${PAGE}.`;
  return warned('database role', detail, remedy);
}

interface Place {
  oid: string;
  name: string;
}

/** Not what tells a database from its copies; enough to see that a name was mistaken. */
const placeOf = async (db: Sql): Promise<Place | undefined> =>
  (
    await db.query<Place>(
      sql`SELECT oid::text, datname::text AS name FROM pg_database WHERE datname = current_database()`,
    )
  )[0];

/** Whether the role of migrations can do what a start needs of it, where there is one. */
export async function examineMigrationRole(db: Sql, { migrationDatabaseUrl }: Config): Promise<Finding[]> {
  if (migrationDatabaseUrl === null) return [];
  const ours = await placeOf(db);
  return lookAt(migrationDatabaseUrl, 'LATCHKEY_MIGRATION_DATABASE_URL', async (owner) => {
    const theirs = await placeOf(owner);
    if (theirs?.oid !== ours?.oid || theirs?.name !== ours?.name) {
      const detail = `LATCHKEY_MIGRATION_DATABASE_URL names the database ${theirs?.name}, DATABASE_URL ${ours?.name}`;
      return [failed('database role', detail, 'Let them differ in nothing but the role.')];
    }
    const { role, powers } = await readRolePowers(owner);
    if (powers.includes('owns the tables') || powers.includes('makes tables')) {
      return [passed('database role', `${role} owns and migrates the tables`)];
    }
    return [failed('database role', `${role} may not make tables`, `Give it the rights of an owner: ${PAGE}.`)];
  });
}
