import type { IncomingMessage, ServerResponse } from 'node:http';
import sql from 'sql-template-tag';
import type { ReadLog } from '../domain/audit-read-log.js';
import { tell } from '../diagnostics.js';
import { startTrip } from '../domain/authorization.js';
import type { Deps } from '../domain/deps.js';
import { type AnswerRefusal, receiveProviderAnswer } from '../domain/provider-answer.js';
import { withOutcome } from '../domain/return-address.js';
import { refusedPage, resultPage, unsolicitedPage } from './pages.js';
import { notFound, respond } from './respond.js';

const UUID = /^[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}$/;
const STATE = /^[A-Za-z0-9_-]{43}$/;
const CODE = /^[\x21-\x7e]{1,2048}$/;
/** RFC 6749 §4.1.2.1, and no longer than an error code can sensibly be. */
const ERROR = /^[\x20\x21\x23-\x5b\x5d-\x7e]{1,200}$/;
const TOKEN = /^[A-Za-z0-9_-]{43}$/;

function respondPage(
  res: ServerResponse,
  status: number,
  { html, csp }: { html: string; csp: string },
  headers = {},
): void {
  respond(
    res,
    status,
    { type: 'text/html; charset=utf-8', text: html },
    { 'content-security-policy': csp, ...headers },
  );
}

/**
 * The cookie that binds a trip to the browser that began it. With the `__Host-` prefix no other host can set it; on
 * loopback without TLS browsers refuse that prefix, so the plain name is used there.
 */
function createCookie(publicUrl: string) {
  const secure = publicUrl.startsWith('https:');
  const nameOf = (sessionId: string) => `${secure ? '__Host-' : ''}latchkey-${sessionId.replaceAll('-', '')}`;
  const attributes = `Path=/; HttpOnly; SameSite=Lax${secure ? '; Secure' : ''}`;
  return {
    set: (sessionId: string, value: string, seconds: number) =>
      `${nameOf(sessionId)}=${value}; Max-Age=${seconds}; ${attributes}`,
    clear: (sessionId: string) => `${nameOf(sessionId)}=; Max-Age=0; ${attributes}`,
    read: (header: string | undefined, sessionId: string): string | null => {
      const name = nameOf(sessionId);
      const values = (header ?? '')
        .split(';')
        .map((pair) => pair.trim())
        .filter((pair) => pair.startsWith(`${name}=`))
        .map((pair) => pair.slice(name.length + 1));
      const [value] = values;
      return values.length === 1 && value !== undefined && TOKEN.test(value) ? value : null;
    },
  };
}

/** GET /oauth/start/{session}: binds the browser and sends it to the provider. */
export function createStartHandler(deps: Deps) {
  const cookie = createCookie(deps.settings.publicUrl);
  return async (_req: IncomingMessage, res: ServerResponse, sessionId: string): Promise<void> => {
    const trip = UUID.test(sessionId) ? await startTrip(deps, sessionId) : null;
    if (trip === null) return respondPage(res, 404, refusedPage());
    return respond(res, 303, null, {
      location: trip.authorizationUrl.href,
      'set-cookie': cookie.set(sessionId, trip.browserToken.reveal(), trip.expiresInSeconds),
    });
  };
}

/** The parameters, unless one is given twice or in a form that other parsers read as a list. RFC 6749 §3.1 */
function readOnce(query: URLSearchParams): Map<string, string> | null {
  const parameters = new Map<string, string>();
  for (const [name, value] of query) {
    if (parameters.has(name) || name.includes('[')) return null;
    parameters.set(name, value);
  }
  return parameters;
}

/** GET /oauth/callback/{appKey}: takes the provider's answer and hands a connect code to the product. */
export function createCallbackHandler(deps: Deps & { reads: ReadLog }) {
  const cookie = createCookie(deps.settings.publicUrl);

  return async (req: IncomingMessage, res: ServerResponse, appKey: string, query: URLSearchParams): Promise<void> => {
    const [app] = await deps.db.query<{ setupUrl: string | null }>(sql`
      SELECT setup_url AS "setupUrl" FROM provider_app WHERE key = ${appKey}`);
    if (app === undefined) return notFound(res);
    const parameters = readOnce(query);
    if (parameters === null) return refuse(res, 'REPEATED_PARAMETER');
    const [state, code = null, error = null] = ['state', 'code', 'error'].map((name) => parameters.get(name));
    if (state === undefined && code !== null) return respondPage(res, 200, unsolicitedPage(app.setupUrl));
    const wellFormed = (code === null || CODE.test(code)) && (error === null || ERROR.test(error));
    if (state === undefined || !STATE.test(state) || !wellFormed) return refuse(res, 'MALFORMED');

    const trip = await receiveProviderAnswer(deps, appKey, { state, code, error }, (sessionId) =>
      cookie.read(req.headers.cookie, sessionId),
    );
    if ('refusal' in trip) return refuse(res, trip.refusal);
    const outcome =
      'connectCode' in trip.outcome
        ? { connectCode: trip.outcome.connectCode.reveal() }
        : { connectError: trip.outcome.failure };
    const headers = { 'set-cookie': cookie.clear(trip.sessionId) };
    if (trip.returnTo === null) return respondPage(res, 200, resultPage(trip.reportTo, outcome), headers);
    const [name, value] = Object.entries(outcome)[0] as ['connectCode' | 'connectError', string];
    return respond(res, 303, null, { ...headers, location: withOutcome(trip.returnTo, name, value) });
  };

  function refuse(res: ServerResponse, reason: AnswerRefusal | 'REPEATED_PARAMETER'): void {
    tell({ kind: 'refused-request', route: 'callback', reason });
    deps.log.warn('an answer from the consent screen was refused', { reason });
    respondPage(res, 400, refusedPage());
  }
}
