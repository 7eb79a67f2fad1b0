import type { PrismaClient } from '../generated/prisma/client.js';
import type { ReadLog } from '../domain/audit-read-log.js';
import type { Renewals } from '../domain/credential.js';
import type { CandidateReader } from '../domain/credential-reader.js';
import type { Deps } from '../domain/deps.js';
import type { PrincipalDirectory } from '../domain/principal-directory.js';
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
  /** Aborted when the time of the operation is over: nothing more is begun for it then. */
  signal?: AbortSignal;
}

/**
 * Makes the context of an operation. The only place where a way to the database is given to a principal: whatever else
 * must hold for their statements belongs here.
 */
export function createContextFactory(
  deps: GraphQLDeps,
): (principal: Principal, clientAddress?: string | null) => Context {
  return (principal, clientAddress = null) => {
    const prisma = scopedPrisma(deps.db.prisma, principal);
    // What is shared is inherited instead of copied for every request.
    return Object.assign(Object.create(deps) as GraphQLDeps, { principal, prisma, clientAddress });
  };
}
