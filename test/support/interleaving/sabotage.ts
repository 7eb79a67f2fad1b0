import type { Sql, SqlStatement } from '../../../src/database/database.js';
import type { Sabotage } from './process.js';

/** In statements that `where` matches, `what` becomes `instead`. */
function rewrite(where: RegExp, what: RegExp, instead: string): Sabotage {
  return (statements) => ({
    query: (statement) => {
      if (!where.test(statement.text)) return statements.query(statement);
      const text = statement.text.replaceAll(what, instead);
      return statements.query({ text, values: statement.values } as unknown as SqlStatement);
    },
  });
}

/** A condition that no longer matters; its parameter stays, since they are counted. */
const ANYTHING = 'AND $1::bigint IS NOT NULL';
const COMMIT = /AS new\(grant_id/;
const LEASE = /WITH candidate AS/;
const REJECTION = /UPDATE credential SET [^$]*failures = failures \+ 1/;

/** Tokens are stored whoever holds the lease by now. */
export const commitsWithoutFence = rewrite(COMMIT, /AND c\.(?:fence|version) = new\.(?:fence|version)/g, '');

/** A lease is handed out while another is running. */
export const leasesWhatIsLeased = rewrite(
  LEASE,
  /AND \(c\.refresh_state = 'IDLE' OR c\.lease_until \+ make_interval\(secs => (\$\d+)\) < now\(\)\)/g,
  'AND $1::float8 IS NOT NULL',
);

/** A lease is handed out to whoever found the token wanting, also when it has been renewed since. */
export const leasesWhatIsFresh = rewrite(LEASE, /AND c\.version = (\$\d+)/g, ANYTHING);

/** A lease that its holder does not give back is never over. */
export const leasesForEver = rewrite(
  LEASE,
  /lease_until = clock_timestamp\(\) \+ make_interval\(secs => (\$\d+)\)/g,
  "lease_until = now() + make_interval(secs => $1) + interval '10 years'",
);

/** A refusal ends the grant whatever has been stored since the token was sent. */
export const endsWithoutFence = rewrite(REJECTION, /AND (?:fence|version) = (\$\d+)/g, ANYTHING);

/** A credential that takes the place of one which was destroyed counts from one again. */
export const countsAnew = rewrite(/SELECT former_version AS version/, /former_version AS version/g, '0 AS version');

/** What a spool has kept finds no way into the database. */
export const storesNothingSpooled = rewrite(
  /scopes = \$\d+::text\[\].* FROM\s+unnest/s,
  /RETURNING/g,
  'AND false RETURNING',
);

/** Health changes and nobody is told. */
export const writesNoEvents = rewrite(/INSERT INTO health_event/, /FROM counter/g, 'FROM counter WHERE false');

/** Reads are answered with what the one before them found, as by a copy that lags behind. */
export const readsFromLaggingCopy: Sabotage = (statements): Sql => {
  const copy = new Map<string, unknown[]>();
  return {
    query: async <Row>(statement: SqlStatement) => {
      const rows = await statements.query<Row>(statement);
      if (!/CROSS JOIN LATERAL/.test(statement.text)) return rows;
      const key = JSON.stringify(statement.values);
      const lagging = (copy.get(key) ?? rows) as Row[];
      copy.set(key, rows);
      return lagging;
    },
  };
};
