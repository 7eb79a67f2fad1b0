import { createServer, type IncomingMessage, type Server, type ServerResponse } from 'node:http';
import { handleAdd, handleAuthorize, handleDecision } from './authorize.js';
import { observe } from './client.js';
import type { Control } from './control.js';
import { handleControl } from './control-http.js';
import { type Exchange, replyInstead, send } from './exchange.js';
import { json, matchPath, readRequest, Refusal, type Reply, type SandboxRequest } from './http.js';
import { handlePortal, handleRemove } from './portal.js';
import { restRoute } from './rest.js';
import { handleRevoke } from './revoke.js';
import type { Store } from './store.js';
import { handleToken } from './token.js';
import { newTrackingId } from './webhook-request.js';
import type { SandboxLog, World } from './world.js';

type Handler = (world: World, request: SandboxRequest, params: Record<string, string>) => Reply;

/** Zoom's own pages and OAuth endpoints; several may share a name in the ledger. */
const ROUTES: { method: string; path: string; route: string; handler: Handler }[] = [
  { method: 'GET', path: '/oauth/authorize', route: 'authorize', handler: handleAuthorize },
  { method: 'POST', path: '/oauth/authorize/decision', route: 'authorize', handler: handleDecision },
  { method: 'GET', path: '/marketplace/apps/{clientId}/add', route: 'authorize', handler: handleAdd },
  { method: 'POST', path: '/oauth/token', route: 'token', handler: handleToken },
  { method: 'POST', path: '/oauth/revoke', route: 'revoke', handler: handleRevoke },
];

interface Route {
  route: string;
  perform(world: World): Reply;
}

function routeOf(request: SandboxRequest): Route {
  if (request.path.startsWith('/v2/')) return restRoute(request);
  let allowed: string | null = null;
  for (const { method, path, route, handler } of ROUTES) {
    const params = matchPath(path, request.path);
    if (params === null) continue;
    if (method === request.method) return { route, perform: (world) => handler(world, request, params) };
    allowed = method;
  }
  if (allowed !== null) {
    const refusal = json(405, { error: `This path takes ${allowed}.` }, 'method-not-allowed');
    return { route: 'unknown', perform: () => ({ ...refusal, headers: { ...refusal.headers, allow: allowed } }) };
  }
  return { route: 'unknown', perform: () => json(404, { error: 'There is nothing at this path.' }, 'unknown-path') };
}

/** A `Refusal`'s reply, or a blank 500 for anything unforeseen. */
function replyTo(error: unknown, { route, log }: { route: string; log: SandboxLog | undefined }): Reply {
  if (error instanceof Refusal) return error.reply;
  log?.error('The sandbox failed to answer a request.', { route }, error);
  return json(500, { error: 'The sandbox failed; its log has the cause.' }, 'failed');
}

/**
 * The sandbox's HTTP server, not yet listening.
 *
 * What a request changed is saved before it is answered, so a token that a client holds is known after a crash as well.
 */
export function createSandboxServer(
  world: World,
  deps: { control: Control; store: Store; signal: AbortSignal; log: SandboxLog | undefined },
): Server {
  const { control, store, signal, log } = deps;

  /** Requests to Zoom: faults, delays, and an entry in the ledger. */
  async function exchange(request: SandboxRequest, { response, clock }: Exchange): Promise<void> {
    const { route, perform } = routeOf(request);
    const facts = observe(world, request, route);
    const fault = world.faults.take({ route, clientId: facts.clientId ?? null, grantType: facts.grantType ?? null });
    const close = world.ledger.open({ ...facts, fault: fault?.kind ?? null });
    const { tokenDelayMs, restDelayMs } = world.state.knobs;
    const delayMs = route === 'token' ? tokenDelayMs : request.path.startsWith('/v2/') ? restDelayMs : 0;
    if (delayMs > 0) await clock.sleep(delayMs, signal);
    if (fault?.kind === 'hang' && fault.when === 'before') await clock.sleep(fault.ms, signal);
    const isAbandoned = fault?.kind === 'hang' && fault.when === 'before' && response.destroyed;
    if (isAbandoned || signal.aborted || (fault?.kind === 'drop' && fault.when === 'before')) {
      close({ outcome: 'not-performed' });
      response.destroy();
      return;
    }
    let reply = replyInstead(fault);
    if (reply === null) {
      try {
        reply = perform(world);
        await store.flush();
      } catch (error) {
        reply = replyTo(error, { route, log });
      }
    }
    if (request.path.startsWith('/v2/')) reply.headers['x-zm-trackingid'] = newTrackingId();
    const isAnswered = fault?.kind !== 'drop';
    close({ status: isAnswered ? reply.status : null, outcome: reply.outcome });
    await send({ response, clock, signal }, reply, fault);
    reply.after?.();
    await store.flush();
  }

  async function answer(incoming: IncomingMessage, response: ServerResponse): Promise<void> {
    const connection: Exchange = { response, clock: world.clock, signal };
    let own: Reply | null = null;
    try {
      const request = await readRequest(incoming);
      const isOwnPage = (method: string, path: string): boolean => request.method === method && request.path === path;
      if (request.path.startsWith('/_sandbox/')) own = await handleControl(control, request);
      else if (isOwnPage('GET', '/')) own = handlePortal(control, request);
      else if (isOwnPage('POST', '/marketplace/remove')) own = handleRemove(control, request);
      else return await exchange(request, connection);
      await store.flush();
    } catch (error) {
      if (response.headersSent || response.destroyed) return;
      own = replyTo(error, { route: 'control', log });
    }
    await send(connection, own, null);
  }

  return createServer((incoming, response) => {
    answer(incoming, response).catch((error: unknown) => {
      log?.error('The sandbox failed to answer a request.', { route: 'unknown' }, error);
      response.destroy();
    });
  });
}
