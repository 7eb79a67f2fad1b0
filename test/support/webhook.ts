import { createHmac } from 'node:crypto';

export const nowSeconds = () => Math.floor(Date.now() / 1_000);

/** The signature that Zoom puts on a body. */
export const signatureOf = (secret: string, timestamp: number | string, body: string | Uint8Array) =>
  `v0=${createHmac('sha256', secret).update(`v0:${timestamp}:`).update(body).digest('hex')}`;

/** Delivers a signed body. `headers` overrides what is sent; undefined leaves one out. */
export async function deliver(
  url: string,
  body: unknown,
  {
    secret,
    timestamp = nowSeconds(),
    headers = {},
  }: { secret: string; timestamp?: number | string; headers?: Record<string, string | undefined> },
): Promise<Response> {
  const text = typeof body === 'string' ? body : JSON.stringify(body);
  const all = {
    'content-type': 'application/json; charset=utf-8',
    'x-zm-request-timestamp': String(timestamp),
    'x-zm-signature': signatureOf(secret, timestamp, text),
    ...headers,
  };
  const sent = Object.fromEntries(Object.entries(all).filter(([, value]) => value !== undefined));
  return fetch(url, { method: 'POST', headers: sent as Record<string, string>, body: text });
}
