import { GraphQLError } from 'graphql';
import type { Context, Permission } from './context.js';

/** @throws a FORBIDDEN error: the caller is known, and may not do this. */
export function requirePermission({ principal }: Pick<Context, 'principal'>, permission: Permission): void {
  if (principal.kind === 'SERVER_KEY' && principal.permissions.includes(permission)) return;
  throw new GraphQLError(`This needs a server key with the permission ${permission}.`, {
    extensions: { code: 'FORBIDDEN' },
  });
}
