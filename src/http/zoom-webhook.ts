import type { IncomingMessage, ServerResponse } from 'node:http';
import { inSpan, tell } from '../diagnostics.js';
import type { Deps } from '../domain/deps.js';
import { receiveWebhook } from '../domain/webhook.js';
import { notFound, readBody, respond, respondJson } from './respond.js';

/** Zoom's largest events are a few kilobytes. */
const MAX_BODY_BYTES = 1_048_576;

/**
 * POST /webhooks/zoom/{appKey}. 200 once the event is stored with its effect, or is signed and means nothing here; 401
 * without a right signature, 404 for an unknown app, 413 for a body that is too long, 400 for a validation that must not
 * be answered, 503 when the database is away, so that the provider delivers again.
 */
export function createZoomWebhookHandler(deps: Deps) {
  return async (req: IncomingMessage, res: ServerResponse, appKey: string): Promise<void> => {
    const rawBody = await readBody(req, MAX_BODY_BYTES);
    if (rawBody === null) {
      tell({ kind: 'webhook', outcome: 'too_large' });
      deps.log.warn('a webhook was refused', { route: 'webhook', reason: 'too-large' });
      return respondJson(res, 413, { error: 'Too large.' }, { connection: 'close' });
    }
    try {
      const delivery = {
        appKey,
        rawBody,
        signature: req.headers['x-zm-signature'],
        timestamp: req.headers['x-zm-request-timestamp'],
      };
      const answer = await inSpan('webhook', () => receiveWebhook(deps, delivery));
      switch (answer.kind) {
        case 'unknown-app':
          return notFound(res);
        case 'not-signed':
          return respondJson(res, 401, { error: 'The signature is not right.' });
        case 'malformed-validation':
          return respondJson(res, 400, { error: 'The token is not one that can be answered.' });
        case 'validation':
          return respondJson(res, 200, answer.answer);
        case 'accepted':
          return respond(res, 200, null, { 'content-length': '0' });
      }
    } catch (error) {
      tell({ kind: 'webhook', outcome: 'not_stored' });
      deps.log.error('a webhook could not be stored', { route: 'webhook' }, error);
      return respondJson(res, 503, { error: 'Try again later.' }, { 'retry-after': '60' });
    }
  };
}
