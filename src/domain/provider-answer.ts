import { timingSafeEqual } from 'node:crypto';
import sql from 'sql-template-tag';
import type { Sql } from '../database/database.js';
import { authorizationTopic } from '../feed/feed.js';
import type { AuthorizationFailure } from '../generated/prisma/enums.js';
import { Secret } from '../secret.js';
import { actingAs, noteAudit } from './audit.js';
import type { ReadLog } from './audit-read-log.js';
import type { AuditPrincipal } from './audit-trail.js';
import { codePlace } from './authorization.js';
import type { Deps } from './deps.js';
import { createRandomToken, hashToken } from './random-token.js';

/** What the provider's redirect carried, already known to hold no parameter twice. */
export interface ProviderAnswer {
  state: string;
  code: string | null;
  error: string | null;
}

/** Where the trip goes on: at `returnTo`, or on a result page that reports to one of the origins. */
export interface ReturningTrip {
  sessionId: string;
  returnTo: string | null;
  reportTo: readonly string[];
  outcome: { connectCode: Secret } | { failure: AuthorizationFailure };
}

export type AnswerRefusal = 'UNKNOWN_STATE' | 'OTHER_BROWSER' | 'MALFORMED';

function failureOf(error: string): AuthorizationFailure {
  if (error === 'access_denied') return 'DENIED_BY_USER';
  return error === 'server_error' || error === 'temporarily_unavailable' ? 'PROVIDER_UNAVAILABLE' : 'CODE_REJECTED';
}

interface AnsweredSession {
  id: string;
  tenantId: string;
  returnTo: string | null;
  browserHash: Uint8Array | null;
  allowedOrigins: string[];
  isPending: boolean;
  isOver: boolean;
}

/** The trip whose state it is, also one that is over. */
async function findTrip(db: Sql, appKey: string, stateHash: Uint8Array): Promise<AnsweredSession | undefined> {
  const [session] = await db.query<AnsweredSession>(sql`
    SELECT s.id, s.tenant_id AS "tenantId", s.return_to AS "returnTo", s.browser_hash AS "browserHash",
      t.allowed_origins AS "allowedOrigins", s.status = 'PENDING' AS "isPending", s.expires_at <= now() AS "isOver"
    FROM authorization_session s
    JOIN provider_app a ON a.id = s.app_id
    JOIN tenant t ON t.id = s.tenant_id
    WHERE s.state_hash = ${stateHash} AND a.key = ${appKey}`);
  return session;
}

/** Why an answer with the state of a trip is not taken, as the audit trail tells it; null: it is. */
function refusalOf(
  { isPending, isOver, browserHash }: AnsweredSession,
  answer: ProviderAnswer,
  token: string | null,
): 'STATE_REUSED' | 'EXPIRED' | 'OTHER_BROWSER' | 'MALFORMED' | null {
  if (!isPending) return 'STATE_REUSED';
  if (isOver) return 'EXPIRED';
  const isBound = token !== null && browserHash !== null && timingSafeEqual(hashToken(token), browserHash);
  if (!isBound) return 'OTHER_BROWSER';
  return answer.code === null && answer.error === null ? 'MALFORMED' : null;
}

/** Whoever carries the state. Nothing is told of them but their trip: not even where they are. */
const browserOf = (sessionId: string): AuditPrincipal => ({
  kind: 'BROWSER',
  id: sessionId,
  externalUserId: null,
  clientAddress: null,
});

/**
 * Takes the provider's answer back from the browser: checks state, app and browser, and consumes the session, which
 * works once. A code is sealed into the session and a connect code made in its place; nothing is redeemed here.
 *
 * What becomes of it leaves an event in the same transaction. A refusal with the state of a trip is counted for the
 * trail; one with a state that was never given is not, for anybody can make one up.
 *
 * @param browserToken reads the cookie of a session from the request; null where there is none.
 * @returns a refusal when the answer does not belong to a pending trip of this browser: then nothing has changed.
 */
export async function receiveProviderAnswer(
  deps: Deps & { reads: ReadLog },
  appKey: string,
  answer: ProviderAnswer,
  browserToken: (sessionId: string) => string | null,
): Promise<ReturningTrip | { refusal: AnswerRefusal }> {
  const stateHash = hashToken(answer.state);
  const session = await findTrip(deps.db, appKey, stateHash);
  if (session === undefined) return { refusal: 'UNKNOWN_STATE' };
  const principal = browserOf(session.id);
  const refuse = (reason: NonNullable<ReturnType<typeof refusalOf>>): { refusal: AnswerRefusal } => {
    const subject = `AuthorizationSession:${session.id}`;
    deps.reads.refused({ action: 'authorization.answered', tenantId: session.tenantId, principal, subject, reason });
    return { refusal: reason === 'STATE_REUSED' || reason === 'EXPIRED' ? 'UNKNOWN_STATE' : reason };
  };
  const refusal = refusalOf(session, answer, browserToken(session.id));
  if (refusal !== null) return refuse(refusal);

  const failure = answer.error !== null || answer.code === null ? failureOf(answer.error ?? '') : null;
  const connectCode = createRandomToken();
  const changes =
    failure === null
      ? await awaitCompletion(deps, session, new Secret(answer.code ?? ''), connectCode)
      : sql`status = 'FAILED', failure = ${failure}::"AuthorizationFailure", sealed_code_verifier = NULL`;
  const isTaken = await actingAs(deps.db, { principal }).transaction((tx) =>
    consume(tx, session, { stateHash, changes, failure }),
  );
  if (!isTaken) return refuse('STATE_REUSED');
  deps.feed.publish(authorizationTopic(session.id));
  const outcome = failure === null ? { connectCode } : { failure };
  return { sessionId: session.id, returnTo: session.returnTo, reportTo: session.allowedOrigins, outcome };
}

async function awaitCompletion(
  { vault, db, settings }: Deps,
  { tenantId, id }: AnsweredSession,
  code: Secret,
  connectCode: Secret,
): Promise<Changes> {
  const { sealed } = await vault.seal(db, codePlace(tenantId, id), code);
  return sql`
    status = 'AWAITING_COMPLETION', sealed_code = ${sealed}, connect_code_hash = ${hashToken(connectCode.reveal())},
    expires_at = least(expires_at, now() + make_interval(secs => ${settings.connectCodeSeconds}))`;
}

type Changes = ReturnType<typeof sql>;

/** The atomic step that makes a state work once: of several answers with one state, one finds it pending. */
async function consume(
  tx: Sql,
  { id, tenantId }: AnsweredSession,
  { stateHash, changes, failure }: { stateHash: Uint8Array; changes: Changes; failure: AuthorizationFailure | null },
): Promise<boolean> {
  const rows = await tx.query(sql`
    UPDATE authorization_session SET ${changes}, browser_hash = NULL
    WHERE id = ${id}::uuid AND state_hash = ${stateHash} AND status = 'PENDING' AND expires_at > now() RETURNING id`);
  if (rows.length === 0) return false;
  const action = failure === null ? 'authorization.answered' : 'authorization.failed';
  noteAudit(tx, { tenantId, action, subject: `AuthorizationSession:${id}`, reason: failure });
  return true;
}
