import { inject } from 'vitest';

/** Set by hand, to run what there is behind a connection pooler in transaction mode. */
export const IS_POOLED = process.env['LATCHKEY_TEST_POOLER'] === '1';

/** Set by hand, to run what there is with servers whose role owns nothing. */
export const HAS_OWN_ROLE = process.env['LATCHKEY_TEST_ROLE'] === '1';

/** The role that servers have then; made where it is missing. */
export const TEST_ROLE = 'latchkey_test_application';

/** How a server comes to a database of the tests: straight and as its owner, unless told otherwise. */
export interface WayToDatabase {
  connectionString: string;
  migrationUrl?: string;
  preparedStatements?: boolean;
}

/** @param url the database, as tests use it themselves. */
export function wayTo(url: string): WayToDatabase {
  const pooled = inject('poolerPort');
  const way = new URL(url);
  if (pooled !== null) way.port = String(pooled);
  const owner = way.href;
  if (!HAS_OWN_ROLE) return { connectionString: owner, ...(pooled === null ? {} : { preparedStatements: false }) };
  way.username = TEST_ROLE;
  return { connectionString: way.href, migrationUrl: owner, preparedStatements: pooled === null };
}

/** The settings of a server in a process of its own, on that way. Where a test has its own, or another server, as they are. */
export function onItsWay(settings: Record<string, string>): Record<string, string> {
  const url = settings['DATABASE_URL'];
  if ((!IS_POOLED && !HAS_OWN_ROLE) || url === undefined || new URL(url).port !== new URL(inject('postgresUrl')).port) {
    return settings;
  }
  const { connectionString, migrationUrl, preparedStatements = true } = wayTo(url);
  return {
    LATCHKEY_PREPARED_STATEMENTS: preparedStatements ? '1' : '0',
    ...(migrationUrl === undefined ? {} : { LATCHKEY_MIGRATION_DATABASE_URL: migrationUrl }),
    ...settings,
    DATABASE_URL: connectionString,
  };
}
