import { Agent, request } from 'undici';
import { fingerprintOf } from '../../src/sandbox/mint.js';
import type { Answer } from '../support/server.js';

/** What a reader of a credential got, and when; the times are of the harness's clock, in milliseconds. */
export interface Reading {
  grantId: string;
  startedAt: number;
  endedAt: number;
  /** Typename of the answer; `HTTP …`, `errors …` or `cut …` where there was none. */
  kind: string;
  version: number | null;
  /** Null where no token was given. */
  token: { value: string; fingerprint: string; apiUrl: string } | null;
  reason: string | null;
  warning: string | null;
  retryAfterSeconds: number | null;
}

const CREDENTIAL = `query ($input: CredentialInput!) {
  credential(input: $input) {
    __typename
    ... on Credential { accessToken apiUrl version warning }
    ... on ReauthorizationRequiredError { reason }
    ... on ProviderUnavailableError { reason retryAfterSeconds }
  }
}`;

/** Many callers on one machine: as many connections as needed, and none that waits for ever. */
export const createCallers = (): Agent =>
  new Agent({ connections: 400, pipelining: 1, headersTimeout: 45_000, bodyTimeout: 45_000, keepAliveTimeout: 4_000 });

/** One operation over HTTP; rejects where the connection breaks. */
export async function postOperation(
  dispatcher: Agent,
  { url, adminKey }: { url: string; adminKey: string },
  operation: { query: string; variables?: Record<string, unknown> | undefined },
): Promise<Answer & { text: string }> {
  const { statusCode, headers, body } = await request(`${url}/graphql`, {
    dispatcher,
    method: 'POST',
    headers: { 'content-type': 'application/json', authorization: `Bearer ${adminKey}` },
    body: JSON.stringify(operation),
  });
  const text = await body.text();
  const answered = (text.startsWith('{') ? JSON.parse(text) : {}) as Pick<Answer, 'data' | 'errors'>;
  return {
    status: statusCode,
    headers: new Headers(headers as Record<string, string>),
    data: answered.data,
    errors: answered.errors,
    text,
  };
}

/** Reads one credential. Never rejects: a broken connection is something that callers see, too. */
export async function readOnce(
  dispatcher: Agent,
  server: { url: string; adminKey: string },
  { rowId, input }: { rowId: string; input: Record<string, unknown> },
): Promise<Reading> {
  const startedAt = Date.now();
  const blank = { version: null, token: null, reason: null, warning: null, retryAfterSeconds: null };
  const ended = (facts: Partial<Reading> & Pick<Reading, 'kind'>): Reading => ({
    grantId: rowId,
    startedAt,
    endedAt: Date.now(),
    ...blank,
    ...facts,
  });
  try {
    const { status, data, errors } = await postOperation(dispatcher, server, {
      query: CREDENTIAL,
      variables: { input },
    });
    const answer = data?.credential;
    if (answer === undefined || answer === null) {
      return ended({ kind: errors === undefined ? `HTTP ${status}` : `errors ${errors[0]?.extensions?.code ?? '?'}` });
    }
    const { accessToken, apiUrl } = answer;
    return ended({
      kind: answer.__typename,
      version: answer.version ?? null,
      token: accessToken ? { value: accessToken, fingerprint: fingerprintOf(accessToken), apiUrl } : null,
      reason: answer.reason ?? null,
      warning: answer.warning ?? null,
      retryAfterSeconds: answer.retryAfterSeconds ?? null,
    });
  } catch (error) {
    return ended({ kind: `cut ${(error as NodeJS.ErrnoException).code ?? 'UNKNOWN'}` });
  }
}

/** What Zoom says when the token is used. */
export async function meStatus(dispatcher: Agent, token: NonNullable<Reading['token']>): Promise<number> {
  const { statusCode, body } = await request(`${token.apiUrl}/v2/users/me`, {
    dispatcher,
    headers: { authorization: `Bearer ${token.value}` },
  });
  await body.dump();
  return statusCode;
}

/** The status of a server's `/readyz`. */
export async function readiness({ url }: { url: string }): Promise<number> {
  const { statusCode, body } = await request(`${url}/readyz`);
  await body.dump();
  return statusCode;
}

/** How many readings there are of each kind, as `3 × Credential`. */
export function summary(readings: readonly Pick<Reading, 'kind' | 'reason' | 'version'>[]): string {
  const counts = new Map<string, number>();
  for (const { kind, reason, version } of readings) {
    const name = [kind, reason, version === null ? null : `v${version}`].filter((part) => part !== null).join(' ');
    counts.set(name, (counts.get(name) ?? 0) + 1);
  }
  return [...counts].map(([name, count]) => `${count} × ${name}`).join(', ') || 'nothing';
}

/** The value that `share` of the numbers do not exceed. */
export function percentile(numbers: readonly number[], share: number): number {
  const sorted = numbers.toSorted((a, b) => a - b);
  return sorted[Math.min(sorted.length - 1, Math.floor(sorted.length * share))] ?? 0;
}
