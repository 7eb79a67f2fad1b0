import type { GraphQLFormattedError } from 'graphql';
import { RETRY_AFTER_SECONDS } from '../database/connection-shares.js';

/** As much of an answer as its status is told by. */
export interface Answer {
  data?: Record<string, unknown> | null | undefined;
  errors?: readonly Pick<GraphQLFormattedError, 'extensions'>[] | undefined;
}

/** An answer that is written already; null for anything but the JSON of one, such as a page for a browser. */
export function answerOf(text: string): Answer | null {
  if (!text.startsWith('{')) return null;
  try {
    return JSON.parse(text) as Answer;
  } catch {
    return null;
  }
}

/** @see https://graphql.github.io/graphql-over-http/draft/#sec-Status-Codes */
export function statusOf({ data, errors }: Answer, mediaType: string): number {
  if (errors === undefined) return 200;
  const has = (code: string) => errors.some(({ extensions }) => extensions?.['code'] === code);
  if (has('DEADLINE_EXCEEDED')) return 504;
  // Where something was answered, or done, it must not be asked for again as a whole.
  if (has('RATE_LIMITED') && Object.values(data ?? {}).every((field) => field === null)) return 429;
  // Without data the request itself was wrong; application/json tells that in the body alone.
  return data === undefined && !mediaType.startsWith('application/json') ? 400 : 200;
}

/** When what was refused may be asked for again. RFC 6585 §4 */
export const retryHeaders = (status: number): Record<string, string> =>
  status === 429 ? { 'retry-after': String(RETRY_AFTER_SECONDS) } : {};
