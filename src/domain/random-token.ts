import { hash, randomBytes } from 'node:crypto';
import { Secret } from '../secret.js';

/** 256 random bits as 43 base64url characters. */
export const createRandomToken = (): Secret => new Secret(randomBytes(32).toString('base64url'));

/** What is stored of a random token instead of the token. Too much entropy for a guess, so no slow hash is needed. */
export const hashToken = (token: string): Buffer => hash('sha256', token, 'buffer');
