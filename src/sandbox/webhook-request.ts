import { createHmac, randomUUID } from 'node:crypto';
import { request as httpRequest } from 'node:http';
import { request as httpsRequest } from 'node:https';
import type { App } from './model.js';

/** `v0=` and the hex HMAC-SHA256 of `v0:{timestamp}:{body}`. */
export const signatureOf = (secret: string, timestamp: number, body: string): string =>
  `v0=${createHmac('sha256', secret).update(`v0:${timestamp}:${body}`).digest('hex')}`;

/** The answer that proves possession of the secret in a URL validation. */
export const encryptedTokenOf = (secret: string, plainToken: string): string =>
  createHmac('sha256', secret).update(plainToken).digest('hex');

export const newTrackingId = (): string => `v=2.0;clid=sandbox;rid=WEB_${randomUUID().replaceAll('-', '')}`;

/** Headers of a webhook as Zoom's sample shows them, without the legacy verification token. */
export const webhookHeaders = (
  app: App,
  { body, timestamp, trackingId }: { body: string; timestamp: number; trackingId: string },
): Record<string, string> => ({
  'user-agent': 'Zoom Marketplace/1.0a',
  'content-type': 'application/json; charset=utf-8',
  'content-length': String(Buffer.byteLength(body)),
  'accept-encoding': 'gzip',
  clientid: app.clientId,
  'x-zm-request-timestamp': String(timestamp),
  'x-zm-signature': signatureOf(app.webhookSecret, timestamp, body),
  'x-zm-trackingid': trackingId,
});

/** Longest answer that is read, in bytes; the rest is dropped. */
const ANSWER_LIMIT = 64 * 1024;

/**
 * POSTs over a connection of its own and follows no redirect.
 *
 * @throws any transport error, or the abort of `signal`.
 */
export function post(
  url: string,
  { headers, body, signal }: { headers: Record<string, string>; body: string; signal: AbortSignal },
): Promise<{ status: number; body: string }> {
  return new Promise((resolve, reject) => {
    const target = new URL(url);
    const send = target.protocol === 'https:' ? httpsRequest : httpRequest;
    const outgoing = send(target, { method: 'POST', headers, signal, agent: false }, (incoming) => {
      const chunks: Buffer[] = [];
      let size = 0;
      incoming.on('data', (chunk: Buffer) => {
        size += chunk.length;
        if (size <= ANSWER_LIMIT) chunks.push(chunk);
      });
      incoming.on('end', () =>
        resolve({ status: incoming.statusCode ?? 0, body: Buffer.concat(chunks).toString('utf8') }),
      );
      incoming.on('error', reject);
    });
    outgoing.on('error', reject);
    outgoing.end(body);
  });
}
