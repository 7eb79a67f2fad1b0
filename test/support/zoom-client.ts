import { inspect } from 'node:util';
import { expect } from 'vitest';
import { systemClock } from '../../src/clock.js';
import { Secret } from '../../src/secret.js';
import { createZoom, type Zoom, type ZoomClient } from '../../src/zoom/zoom.js';

/** Stands in every secret and in every scripted answer, and must not stand in anything that is thrown. */
export const CANARY = 'ZCANARY_5d1f';

export const client: ZoomClient = {
  environment: 'COMMERCIAL',
  clientId: 'client-id',
  clientSecret: new Secret(`${CANARY}_client_secret`),
};

export const codeGrant = {
  code: new Secret(`${CANARY}_code`),
  codeVerifier: new Secret(`${CANARY}_verifier`),
  redirectUri: 'https://latchkey.example/oauth/callback/app1',
};

export const refreshToken = new Secret(`${CANARY}_refresh_token`);
export const accessToken = new Secret(`${CANARY}_access_token`);

/** A token answer with nothing wrong in it. */
export const goodTokens = {
  access_token: `${CANARY}_new_access`,
  token_type: 'bearer',
  refresh_token: `${CANARY}_new_refresh`,
  expires_in: 3600,
  scope: 'user:read:user meeting:read:meeting',
  api_url: 'https://api-eu.zoom.us',
};

/** A client whose both environments are at `origin`. */
export function zoomAt(origin: string, { deadlineMs = 5_000 } = {}): Zoom & { close(): Promise<void> } {
  const host = { oauthUrl: origin, apiUrl: `${origin}/v2` };
  return createZoom({ hosts: { COMMERCIAL: host, GOVERNMENT: host }, deadlineMs, clock: systemClock });
}

/** What `promise` rejects with; a promise that resolves fails the test. */
export async function failureOf(promise: Promise<unknown>): Promise<Error> {
  const outcome = await promise.then(
    () => null,
    (error: unknown) => error,
  );
  expect(outcome).toBeInstanceOf(Error);
  return outcome as Error;
}

/** Everything a log line or a crash report could show of an error, its hidden members and causes included. */
export function everythingShown(error: Error): string {
  const members: Record<string, unknown> = {};
  for (const key of Object.getOwnPropertyNames(error)) members[key] = Reflect.get(error, key);
  return [
    String(error),
    error.stack ?? '',
    inspect(error, { depth: null, showHidden: true }),
    JSON.stringify(error),
    JSON.stringify(members),
  ].join('\n');
}

/** No secret that was sent and no text that was answered stands in the error, nor the Basic header's encoding of one. */
export function expectNothingLeaked(error: Error): void {
  const shown = everythingShown(error);
  expect(shown).not.toContain('ZCANARY');
  expect(shown).not.toContain(Buffer.from(CANARY).toString('hex'));
  const basic = Buffer.from(`${client.clientId}:${client.clientSecret.reveal()}`).toString('base64');
  expect(shown).not.toContain(basic);
  expect(error.cause).toBeUndefined();
}
