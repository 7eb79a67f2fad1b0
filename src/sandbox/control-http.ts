import { ZodError } from 'zod';
import type { Control } from './control.js';
import { ControlError } from './control-error.js';
import { json, matchPath, Refusal, type Reply, type SandboxRequest } from './http.js';

interface Call {
  /** The `{name}` parts of the path. */
  params: Record<string, string>;
  /** The JSON body; each operation checks it. */
  input: never;
  query: URLSearchParams;
}

type Operation = (control: Control, call: Call) => unknown;

/** The control API: method, path below `/_sandbox`, operation. What an operation returns is the JSON answer. */
const OPERATIONS: [method: string, path: string, operation: Operation][] = [
  ['GET', '/accounts', (control) => control.accounts()],
  ['POST', '/accounts', (control, { input }) => control.createAccount(input)],
  ['GET', '/users', (control) => control.users()],
  ['POST', '/users', (control, { input }) => control.createUser(input)],
  ['POST', '/users/{id}/remove', (control, { params, input }) => control.removeUser(params['id']!, input)],
  ['PATCH', '/users/{id}', (control, { params, input }) => control.updateUser(params['id']!, input)],
  ['GET', '/meetings', (control) => control.meetings()],
  ['POST', '/meetings', (control, { input }) => control.createMeeting(input)],
  ['PATCH', '/meetings/{id}', (control, { params, input }) => control.updateMeeting(Number(params['id']), input)],
  ['POST', '/meetings/{id}/delete', (control, { params, input }) => control.deleteMeeting(Number(params['id']), input)],
  ['GET', '/apps', (control) => control.apps()],
  ['POST', '/apps', (control, { input }) => control.createApp(input)],
  ['GET', '/apps/{id}', (control, { params }) => control.app(params['id']!)],
  ['PATCH', '/apps/{id}', (control, { params, input }) => control.updateApp(params['id']!, input)],
  ['POST', '/apps/{id}/rotate-secret', (control, { params }) => control.rotateSecret(params['id']!)],
  ['POST', '/apps/{id}/validate-webhook', (control, { params }) => control.validateWebhook(params['id']!)],
  ['GET', '/grants', (control) => control.grants()],
  ['POST', '/grants/remove', (control, { input }) => control.removeGrant(input)],
  ['POST', '/tokens/expire', (control, { input }) => ({ expired: control.expireAccessTokens(input) })],
  ['GET', '/knobs', (control) => control.knobs()],
  ['PUT', '/knobs', (control, { input }) => control.setKnobs(input)],
  ['POST', '/faults', (control, { input }) => control.addFault(input)],
  ['DELETE', '/faults', (control) => control.clearFaults()],
  ['GET', '/ledger', (control, { query }) => control.journal(sinceOf(query))],
  ['DELETE', '/ledger', (control) => control.clearJournal()],
  ['POST', '/reset', (control) => control.reset()],
];

function sinceOf(query: URLSearchParams): number {
  const since = Number(query.get('since') ?? '0');
  if (!Number.isSafeInteger(since) || since < 0) throw new ControlError(400, 'since is a whole number, 0 or more.');
  return since;
}

/** The JSON body, or an empty object for none. JSON alone is taken, so that no web page's form can call the API. */
function inputOf(request: SandboxRequest): unknown {
  if (request.body === '') return {};
  if (!/^application\/json\s*(;|$)/i.test(request.headers['content-type'] ?? '')) {
    throw new ControlError(415, 'The body is application/json.');
  }
  try {
    return JSON.parse(request.body);
  } catch {
    // The parser's message repeats the body.
    throw new ControlError(400, 'The body is not JSON.');
  }
}

const LOOPBACK_ADDRESS = /^(127\.|::1$|::ffff:127\.)/;
const LOOPBACK_HOST = /^(localhost|127\.\d+\.\d+\.\d+|\[::1\])(:\d+)?$/i;

/**
 * Lets in programs on this machine, and this sandbox's own pages: no other host, no foreign web page, no name that was
 * made to point here. The control API hands out secrets.
 *
 * @throws {Refusal} 403
 */
export function requireLocal({ headers, method, remoteAddress }: SandboxRequest): void {
  const host = headers.host ?? '';
  const isLocal = LOOPBACK_ADDRESS.test(remoteAddress ?? '') && LOOPBACK_HOST.test(host);
  const isForeignPage = headers.origin !== undefined && headers.origin !== `http://${host}`;
  if (!isLocal || (isForeignPage && method !== 'GET')) {
    throw new Refusal(
      json(403, { error: 'This part of the sandbox is for programs and people on this machine.' }, 'not-local'),
    );
  }
}

/** Answers a request under `/_sandbox/`. */
export async function handleControl(control: Control, request: SandboxRequest): Promise<Reply> {
  requireLocal(request);
  const path = request.path.slice('/_sandbox'.length);
  try {
    for (const [method, pattern, operation] of OPERATIONS) {
      const params = method === request.method ? matchPath(pattern, path) : null;
      if (params === null) continue;
      const result = await operation(control, { params, input: inputOf(request) as never, query: request.query });
      return json(200, result ?? { ok: true }, 'done');
    }
    return json(404, { error: 'The control API has no such operation.' }, 'unknown-path');
  } catch (error) {
    if (error instanceof ControlError) return json(error.status, { error: error.message }, 'refused');
    if (error instanceof ZodError) {
      const problems = error.issues.map(({ path: where, message }) => `${where.join('.') || 'body'}: ${message}`);
      return json(400, { error: 'The input is not valid.', problems }, 'refused');
    }
    throw error;
  }
}
