import { randomBytes } from 'node:crypto';
import type { TestServer } from './server.js';

/** Makes a Zoom user that no other test connects: one consent supersedes another of the same user. @returns their id. */
export function newZoomUser(server: TestServer, input: { accountId?: string; role?: 'Admin' | 'Member' } = {}): string {
  const name = `User ${randomBytes(4).toString('hex')}`;
  return server.sandbox.control.createUser({
    email: `${name.replace(' ', '.')}@zoom.example`,
    displayName: name,
    ...input,
  }).id;
}
