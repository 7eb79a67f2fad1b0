import { createHash, randomBytes } from 'node:crypto';
import { Secret } from '../secret.js';

/** A new code verifier (RFC 7636 §4.1): 32 random bytes, 43 characters of base64url. One per authorization session. */
export function createCodeVerifier(): Secret {
  return new Secret(randomBytes(32).toString('base64url'));
}

/** The S256 challenge of a code verifier (RFC 7636 §4.2). Not a secret: it travels in the authorization URL. */
export function codeChallengeOf(codeVerifier: Secret): string {
  return createHash('sha256').update(codeVerifier.reveal(), 'ascii').digest('base64url');
}
