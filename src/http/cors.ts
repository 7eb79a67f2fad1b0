import type { IncomingMessage, ServerResponse } from 'node:http';
import { LRUCache } from 'lru-cache';
import sql from 'sql-template-tag';
import type { Database } from '../database/database.js';
import { respond } from './respond.js';

/** How long an origin is believed to be some tenant's, or nobody's. */
const BELIEVED_MS = 3_000;
const MAX_ORIGINS = 1_000;
/** An origin that is longer is no tenant's. */
const MAX_LENGTH = 300;
const PREFLIGHT_SECONDS = 600;

/** Lets pages read answers across origins. Whether a caller is let in at all, and from where, is not decided here. */
export interface Cors {
  /** Allows the page to read what will be answered, if its origin is one that a tenant allows. */
  allow(req: IncomingMessage, res: ServerResponse): Promise<void>;
  /** Answers the question that a browser asks before it sends the request itself, which carries no credentials. */
  preflight(req: IncomingMessage, res: ServerResponse): Promise<void>;
}

export function createCors(db: Pick<Database, 'query'>): Cors {
  const known = new LRUCache<string, boolean>({
    max: MAX_ORIGINS,
    ttl: BELIEVED_MS,
    fetchMethod: async (origin) => {
      const [row] = await db.query(sql`SELECT 1 FROM tenant WHERE allowed_origins @> ${[origin]}::text[] LIMIT 1`);
      return row !== undefined;
    },
  });

  async function allow(req: IncomingMessage, res: ServerResponse): Promise<void> {
    const { origin } = req.headers;
    if (origin === undefined) return;
    res.setHeader('vary', 'origin');
    const isKnown = origin.length <= MAX_LENGTH && !origin.includes('\0') && (await known.fetch(origin));
    if (isKnown === true) res.setHeader('access-control-allow-origin', origin);
  }

  return {
    allow,
    preflight: async (req, res) => {
      await allow(req, res);
      const isAllowed = res.hasHeader('access-control-allow-origin');
      const headers: Record<string, string> = isAllowed
        ? {
            'access-control-allow-methods': 'GET, POST',
            'access-control-allow-headers': 'authorization, content-type',
            'access-control-max-age': String(PREFLIGHT_SECONDS),
          }
        : {};
      respond(res, 204, null, headers);
    },
  };
}
