import { initContextCache } from '@pothos/core';
import type { PrismaClient } from '../generated/prisma/client.js';
import type { ReadLog } from '../domain/audit-read-log.js';
import type { Renewals } from '../domain/credential.js';
import { type CandidateReader, createTenantCandidateReader } from '../domain/credential-reader.js';
import type { Deps } from '../domain/deps.js';
import type { PrincipalDirectory } from '../domain/principal-directory.js';
import type { Database } from '../database/database.js';
import type { Principal } from '../domain/principal.js';
import type { Refresher } from '../domain/refresh.js';
import type { HealthEventStream } from '../feed/event-stream.js';
import type { WebhookSender } from '../outgoing/webhook-sender.js';
import { scopedPrisma } from './scoped-prisma.js';

export { PERMISSIONS, type Permission, type Principal } from '../domain/principal.js';

/** What outlives a request and every resolver may use. */
export interface GraphQLDeps extends Deps {
  refresher: Refresher;
  candidates: CandidateReader;
  renewals: Renewals;
  healthEvents: HealthEventStream;
  principals: PrincipalDirectory;
  reads: ReadLog;
  webhookSender: WebhookSender;
}

/** What resolvers are given. */
export interface Context extends GraphQLDeps {
  /** Reads what the principal may see, and nothing else. */
  prisma: PrismaClient;
  principal: Principal;
  /** Where the request came from, for the audit trail; null where that is not known. */
  clientAddress: string | null;
  /** Nothing more is begun for an operation whose time is over. */
  deadline?: { readonly isOver: boolean };
  /**
   * For commands that touch nothing but the tenant which they name: where the principal is restricted to one, their
   * statements are held to it by row-level security. Commands that reach further, such as storing a grant that ends
   * another tenant's of the same Zoom user, are given the whole context.
   */
  own: GraphQLDeps;
}

/** What a principal of one tenant is given in place of what serves everybody. */
type Restricted = Pick<Context, 'db' | 'prisma' | 'candidates' | 'own'>;

/**
 * Makes the context of an operation. The only place where a way to the database is given to a principal: whatever else
 * must hold for their statements belongs here.
 */
export function createContextFactory(
  deps: GraphQLDeps,
): (principal: Principal, clientAddress?: string | null) => Context {
  const everything = { prisma: deps.db.prisma, own: deps };
  /** Principals are kept for some seconds, and what was made for them as long as they. */
  const made = new WeakMap<Principal, Restricted>();

  function restrict(principal: Principal & { tenantId: string }): Restricted {
    const view = deps.db.tenant(principal.tenantId);
    return {
      db: deps.db.shareOf(principal.tenantId),
      prisma: scopedPrisma(deps.db.prisma, view, principal),
      candidates: createTenantCandidateReader(deps.db, principal.tenantId),
      own: withDatabase(deps, ownDatabase(deps.db, principal)),
    };
  }

  function reachOf(principal: Principal): Pick<Context, 'prisma' | 'own'> & Partial<Restricted> {
    const { tenantId } = principal;
    if (tenantId === null) return everything;
    let restricted = made.get(principal);
    if (restricted === undefined) made.set(principal, (restricted = restrict({ ...principal, tenantId })));
    return restricted;
  }

  return (principal, clientAddress = null) => {
    // What is shared is inherited instead of copied for every request.
    const context = Object.create(deps) as Context;
    context.principal = principal;
    context.clientAddress = clientAddress;
    // What the schema keeps for a request is found by contexts that are derived from it, too.
    return Object.assign(context, reachOf(principal), initContextCache());
  };
}

const withDatabase = <Deps extends GraphQLDeps>(deps: Deps, db: Database): Deps =>
  Object.assign(Object.create(deps) as Deps, { db });

/** The database as a principal may see it. */
function ownDatabase(db: Database, { tenantId }: Principal): Database {
  if (tenantId === null) return db;
  const { query, transaction } = db.tenant(tenantId);
  return { ...db, query, transaction };
}

/** The same context with another database, whatever it is used for. */
export function contextWith(ctx: Context, db: Database): Context {
  return Object.assign(withDatabase(ctx, db), { own: withDatabase(ctx.own, ownDatabase(db, ctx.principal)) });
}
