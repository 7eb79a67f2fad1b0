import DataLoader from 'dataloader';
import sql from 'sql-template-tag';
import type { Database, SqlStatement } from '../database/database.js';
import { keepSpan } from '../diagnostics.js';
import type { GrantKind, HealthReason } from '../generated/prisma/enums.js';
import type { Sealed } from '../vault/vault.js';
import type { HealthColumns } from './health-event.js';

/** Enough to tell one match from several. */
const MAX_CANDIDATES = 10;
const MAX_BATCH = 100;
/** Statements of one kind under way at once; reads that come meanwhile gather for the next. */
const MAX_UNDER_WAY = 2;

export interface CandidateQuery {
  tenantId: string;
  userId: string | null;
  kind: GrantKind;
  grantId: string | null;
}

/** A grant that matches, with its credential as stored and the database's view of its age. */
export interface Candidate extends HealthColumns {
  grantId: string;
  tenantId: string;
  /** Null where the credential is gone; the columns below are null with it. */
  version: number | null;
  sealedAccessToken: Sealed;
  expiresAt: Date;
  scopes: string[];
  apiUrl: string;
  failureReason: HealthReason | null;
  retryAfterSeconds: number | null;
  ttlSeconds: number;
  lifeSeconds: number;
  /** The token came from a refresh, not from the consent itself. */
  isRenewed: boolean;
}

/** Finds the grants that may answer a credential query, live ones first. */
export interface CandidateReader {
  find(query: CandidateQuery): Promise<Candidate[]>;
}

/**
 * The columns of the queries as one table, and for each row its matches by index. The limits keep the planner from
 * turning the look-ups into joins over whole tables.
 */
function writeStatement(kind: GrantKind, queries: readonly CandidateQuery[]): SqlStatement {
  const users = kind === 'USER_CONNECTION' ? sql`AND external_user_id = query.user_id` : sql``;
  return sql`
    SELECT query.position::int AS position, g.id AS "grantId", g.tenant_id AS "tenantId",
      g.health_status AS "healthStatus", g.health_reason AS "healthReason", c.version,
      c.sealed_access_token AS "sealedAccessToken", c.expires_at AS "expiresAt", c.scopes, c.api_url AS "apiUrl",
      c.failure_reason AS "failureReason", ceil(extract(epoch FROM c.retry_at - now()))::int AS "retryAfterSeconds",
      extract(epoch FROM c.expires_at - now())::float8 AS "ttlSeconds",
      extract(epoch FROM c.expires_at - c.issued_at)::float8 AS "lifeSeconds",
      c.last_refreshed_at IS NOT NULL AS "isRenewed"
    FROM unnest(${queries.map((query) => query.tenantId)}::text[], ${queries.map((query) => query.userId)}::text[],
      ${queries.map((query) => query.grantId)}::uuid[]) WITH ORDINALITY AS query(tenant_id, user_id, grant_id, position)
    CROSS JOIN LATERAL (SELECT id FROM tenant WHERE external_id = query.tenant_id LIMIT 1) t
    CROSS JOIN LATERAL (
      SELECT id, tenant_id, health_status, health_reason, health_since FROM provider_grant
      WHERE tenant_id = t.id AND kind = ${kind}::"GrantKind" ${users}
        AND (query.grant_id IS NULL OR id = query.grant_id)
      ORDER BY health_status IN ('HEALTHY', 'DEGRADED') DESC, health_since DESC
      LIMIT ${MAX_CANDIDATES}
    ) g
    LEFT JOIN LATERAL (SELECT * FROM credential WHERE grant_id = g.id LIMIT 1) c ON true
    ORDER BY query.position, g.health_status IN ('HEALTHY', 'DEGRADED') DESC, g.health_since DESC`;
}

const TEXTS: Record<GrantKind, string> = {
  INSTALLATION: writeStatement('INSTALLATION', []).text,
  USER_CONNECTION: writeStatement('USER_CONNECTION', []).text,
};

/** With a text that is written once: one that is put together anew has to be hashed anew for its name. */
const statementFor = (kind: GrantKind, queries: readonly CandidateQuery[]): SqlStatement => ({
  text: TEXTS[kind],
  values: writeStatement(kind, queries).values,
});

/**
 * Reads are what a server does most: those that arrive together are put to the database in one statement, which costs
 * both sides a fraction of one each. Nothing is cached; every read sees what is committed.
 */
export function createCandidateReader(db: Pick<Database, 'query'>): CandidateReader {
  function loaderFor(kind: GrantKind): DataLoader<CandidateQuery, Candidate[]> {
    const waiting: (() => void)[] = [];
    let underWay = 0;

    async function load(queries: readonly CandidateQuery[]): Promise<Candidate[][]> {
      underWay += 1;
      try {
        const found: Candidate[][] = queries.map(() => []);
        const rows = await db.query<Candidate & { position: number }>(statementFor(kind, queries));
        for (const row of rows) found[row.position - 1]?.push(row);
        return found;
      } finally {
        underWay -= 1;
        waiting.shift()?.();
      }
    }

    // After the sockets that are ready have been read, so that requests of one turn share a statement.
    const schedule = (dispatch: () => void) =>
      void setImmediate(() => (underWay < MAX_UNDER_WAY ? dispatch() : void waiting.push(keepSpan(dispatch))));
    return new DataLoader(load, { cache: false, maxBatchSize: MAX_BATCH, batchScheduleFn: schedule });
  }

  const loaders: Record<GrantKind, DataLoader<CandidateQuery, Candidate[]>> = {
    INSTALLATION: loaderFor('INSTALLATION'),
    USER_CONNECTION: loaderFor('USER_CONNECTION'),
  };
  return { find: (query) => loaders[query.kind].load(query) };
}

/** As `createCandidateReader`, for callers of one tenant: row-level security shows them no other's grants. */
export const createTenantCandidateReader = (db: Pick<Database, 'tenant'>, tenantId: string): CandidateReader =>
  createCandidateReader({ query: (statement) => db.tenant(tenantId).read(({ query }) => query(statement)) });
