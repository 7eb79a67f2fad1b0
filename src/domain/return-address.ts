import { InvalidInputError } from '../errors.js';

const MAX_LENGTH = 2_048;

/** Forms that parsers read differently: white space and control characters, backslashes, encoded NUL, dot segments. */
const AMBIGUOUS = /[\s\\\p{Cc}]|%00|\.\.(?:[;/?#]|$)|%2e%2e/iu;

/**
 * Checks where a browser is to be sent at the end of a consent trip.
 *
 * @param allowedOrigins exact origins of the tenant, as `URL.origin` prints them.
 * @returns the address as the URL parser prints it: what was checked is what is used.
 * @throws {InvalidInputError} it is not an absolute web address at one of the origins.
 * @see RFC 9700 §4.11 (open redirectors)
 */
export function checkReturnAddress(value: string, allowedOrigins: readonly string[]): string {
  const refused = new InvalidInputError("Give an absolute address at one of the tenant's allowed origins.", [
    'input',
    'returnTo',
  ]);
  if (value.length > MAX_LENGTH || AMBIGUOUS.test(value) || !/^https?:\/\/[^/]/i.test(value)) throw refused;
  if (!URL.canParse(value)) throw refused;
  const url = new URL(value);
  if (url.username !== '' || url.password !== '' || !allowedOrigins.includes(url.origin)) throw refused;
  // Escaping makes it up to nine times as long, and it must fit into a header of the redirect and the request after it.
  if (url.href.length > MAX_LENGTH) throw refused;
  return url.href;
}

/** The return address with one parameter set, as the trip's outcome. */
export function withOutcome(returnTo: string, name: 'connectCode' | 'connectError', value: string): string {
  const url = new URL(returnTo);
  url.searchParams.delete('connectCode');
  url.searchParams.delete('connectError');
  url.searchParams.set(name, value);
  return url.href;
}
