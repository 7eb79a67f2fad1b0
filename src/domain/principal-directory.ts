import { timingSafeEqual } from 'node:crypto';
import { LRUCache } from 'lru-cache';
import sql from 'sql-template-tag';
import type { Clock } from '../clock.js';
import type { Database } from '../database/database.js';
import type { Log } from '../log.js';
import type { ApiToken } from './api-token.js';
import type { FrontendAction, Permission, Principal } from './principal.js';

/** How long a key or session is believed without a look into the database. Below the five seconds of a revocation. */
const BELIEVED_MS = 3_000;
const MAX_BELIEVED = 10_000;
/** How often those who hold streams are looked up. */
const WATCH_MS = 1_000;

/** Why somebody who was let in is so no longer. */
export type PrincipalEnd = 'EXPIRED' | 'REVOKED';

/** Who the holders of server keys and session tokens are. */
export interface PrincipalDirectory {
  /** @returns null for a token that is wrong, expired or revoked, which are all the same answer. At once where it is known. */
  find(token: ApiToken): Promise<Principal | null> | Principal;
  /**
   * Tells once when a principal comes to an end: at once where this process ends it, else within a few seconds.
   *
   * @returns stops watching.
   */
  watch(principal: Principal, onEnd: (end: PrincipalEnd) => void): () => void;
  /**
   * Reads anew whether principals still are who they were found to be, all of them in one statement. What was committed
   * before the call is seen. Those that have come to an end are told so, as by `watch`.
   *
   * @returns those that may no longer do what they could.
   */
  changed(principals: readonly Principal[]): Promise<Set<Principal>>;
  /** Lets go of principals that were just revoked. */
  forget(ids: readonly string[]): void;
  close(): void;
}

interface Row {
  hash: Uint8Array;
  permissions: Permission[];
  actions: FrontendAction[];
  tenantId: string | null;
  tenantExternalId: string | null;
  externalUserId: string | null;
  expiresAt: Date | null;
  /** Null: does not expire. */
  msLeft: number | null;
  origins: string[];
  returnTo: string | null;
}

/** What no token has, so that one that is unknown takes the way of one that is wrong. */
const NO_HASH = Buffer.alloc(32);

const serverKeyQuery = (id: string) => sql`
  SELECT k.key_hash AS hash, k.permissions::text[] AS permissions, '{}'::text[] AS actions, k.tenant_id AS "tenantId",
    t.external_id AS "tenantExternalId", NULL AS "externalUserId", k.expires_at AS "expiresAt",
    (extract(epoch FROM k.expires_at - now()) * 1000)::float8 AS "msLeft", '{}'::text[] AS origins, NULL AS "returnTo"
  FROM server_key k LEFT JOIN tenant t ON t.id = k.tenant_id WHERE k.id = ${id}::uuid`;

const frontendSessionQuery = (id: string) => sql`
  SELECT s.token_hash AS hash, '{}'::text[] AS permissions, s.actions::text[] AS actions, s.tenant_id AS "tenantId",
    t.external_id AS "tenantExternalId", s.external_user_id AS "externalUserId", s.expires_at AS "expiresAt",
    (extract(epoch FROM s.expires_at - now()) * 1000)::float8 AS "msLeft", s.origins, s.return_to AS "returnTo"
  FROM frontend_session s JOIN tenant t ON t.id = s.tenant_id WHERE s.id = ${id}::uuid`;

/** What of a principal decides what they may do and see. */
type Reach = Pick<Principal, 'permissions' | 'actions' | 'tenantId' | 'externalUserId'>;

/** A text that two principals share exactly when they may do and see the same. */
export const reachOf = ({ permissions, actions, tenantId, externalUserId }: Reach): string =>
  JSON.stringify([permissions.toSorted(), actions.toSorted(), tenantId, externalUserId]);

const hasSame = <T>(a: readonly T[], b: readonly T[]): boolean =>
  a.length === b.length && a.every((one) => b.includes(one));

const hasSameReach = (a: Reach, b: Reach): boolean =>
  a.tenantId === b.tenantId &&
  a.externalUserId === b.externalUserId &&
  hasSame(a.permissions, b.permissions) &&
  hasSame(a.actions, b.actions);

interface Watcher {
  principal: Principal & { id: string };
  onEnd: (end: PrincipalEnd) => void;
}

/**
 * Keeps who was found for a few seconds, so that a busy key costs no statement for each request. Tokens that are
 * refused are not kept.
 */
export function createPrincipalDirectory(deps: {
  db: Pick<Database, 'query'>;
  clock: Clock;
  log: Log;
}): PrincipalDirectory {
  const watchers = new Set<Watcher>();
  const closing = new AbortController();
  let watching = false;

  const believed = new LRUCache<string, Principal, ApiToken>({
    max: MAX_BELIEVED,
    ttl: BELIEVED_MS,
    ttlResolution: 0,
    // Requests that arrive together share one look-up.
    fetchMethod: async (_key, _stale, { context: token, options }) => {
      const query = token.kind === 'SERVER_KEY' ? serverKeyQuery(token.id) : frontendSessionQuery(token.id);
      const [row] = await deps.db.query<Row>(query);
      const isRight = timingSafeEqual(token.hash, row?.hash ?? NO_HASH);
      if (row === undefined || !isRight) return undefined;
      const { hash: _hash, msLeft, ...rest } = row;
      if (msLeft !== null && msLeft <= 0) return undefined;
      options.ttl = Math.max(1, Math.floor(Math.min(BELIEVED_MS, msLeft ?? BELIEVED_MS)));
      return { kind: token.kind, id: token.id, ...rest };
    },
  });

  function end(ids: ReadonlySet<string>, reason: PrincipalEnd): void {
    for (const watcher of watchers) {
      if (!ids.has(watcher.principal.id)) continue;
      watchers.delete(watcher);
      watcher.onEnd(reason);
    }
    for (const [key, principal] of believed.entries()) {
      if (principal.id !== null && ids.has(principal.id)) believed.delete(key);
    }
  }

  async function lookUp(): Promise<void> {
    const ids = (kind: Principal['kind']) => [
      ...new Set([...watchers].filter(({ principal }) => principal.kind === kind).map(({ principal }) => principal.id)),
    ];
    const [keys, sessions] = [ids('SERVER_KEY'), ids('FRONTEND_SESSION')];
    const rows = await deps.db.query<{ id: string; isOver: boolean }>(sql`
      SELECT id, coalesce(expires_at <= now(), false) AS "isOver" FROM server_key WHERE id = ANY(${keys}::uuid[])
      UNION ALL
      SELECT id, expires_at <= now() FROM frontend_session WHERE id = ANY(${sessions}::uuid[])`);
    const there = new Set(rows.map(({ id }) => id));
    end(new Set(rows.filter(({ isOver }) => isOver).map(({ id }) => id)), 'EXPIRED');
    end(new Set([...keys, ...sessions].filter((id) => !there.has(id))), 'REVOKED');
  }

  async function changed(principals: readonly Principal[]): Promise<Set<Principal>> {
    const ids = (kind: Principal['kind']) => [
      ...new Set(
        principals.flatMap((principal) => (principal.kind === kind && principal.id !== null ? [principal.id] : [])),
      ),
    ];
    const [keys, sessions] = [ids('SERVER_KEY'), ids('FRONTEND_SESSION')];
    if (keys.length + sessions.length === 0) return new Set();
    const rows = await deps.db.query<Reach & { id: string; isOver: boolean }>(sql`
      SELECT id, coalesce(expires_at <= now(), false) AS "isOver", permissions::text[] AS permissions,
        '{}'::text[] AS actions, tenant_id AS "tenantId", NULL AS "externalUserId"
      FROM server_key WHERE id = ANY(${keys}::uuid[])
      UNION ALL
      SELECT id, expires_at <= now(), '{}'::text[], actions::text[], tenant_id, external_user_id
      FROM frontend_session WHERE id = ANY(${sessions}::uuid[])`);
    const there = new Map(rows.map((row) => [row.id, row]));
    const over = new Set(rows.filter(({ isOver }) => isOver).map(({ id }) => id));
    const gone = new Set([...keys, ...sessions].filter((id) => !there.has(id)));
    if (over.size > 0) end(over, 'EXPIRED');
    if (gone.size > 0) end(gone, 'REVOKED');
    return new Set(
      principals.filter((principal) => {
        if (principal.id === null) return false;
        const row = there.get(principal.id);
        return row === undefined || row.isOver || !hasSameReach(row, principal);
      }),
    );
  }

  async function keepWatch(): Promise<void> {
    if (watching) return;
    watching = true;
    while (watchers.size > 0 && !closing.signal.aborted) {
      try {
        await lookUp();
      } catch {
        // Without a database nothing is delivered either; they are looked up again when it is back.
        deps.log.warn('holders of streams could not be looked up; trying again', { job: 'watch-principals' });
      }
      await deps.clock.sleep(WATCH_MS, closing.signal);
    }
    watching = false;
  }

  return {
    find: (token) => {
      const name = token.hash.toString('base64');
      return believed.get(name) ?? believed.fetch(name, { context: token }).then((principal) => principal ?? null);
    },
    watch: (principal, onEnd) => {
      const { id } = principal;
      if (id === null) return () => undefined;
      const watcher: Watcher = { principal: { ...principal, id }, onEnd };
      watchers.add(watcher);
      void keepWatch();
      return () => void watchers.delete(watcher);
    },
    changed,
    forget: (ids) => end(new Set(ids), 'REVOKED'),
    close: () => closing.abort(),
  };
}
