import type { GrantKind } from '../generated/prisma/enums.js';
import type { Context } from './context.js';
import { NO_ROW } from './ids.js';

type Reach = Pick<Context, 'principal' | 'prisma'>;

/** An identifier that no tenant has: theirs hold no spaces. */
const NO_TENANT = ' ';

/**
 * The product's identifier of a tenant, as the domain is to be given it: for a tenant that the principal does not reach,
 * one that does not exist. So the answer is the one for a tenant that does not exist, by the same way.
 */
export const ownTenantId = ({ principal }: Pick<Context, 'principal'>, tenantId: string): string =>
  principal.tenantExternalId === null || principal.tenantExternalId === tenantId ? tenantId : NO_TENANT;

/** As `ownTenantId`, for the row of a grant. */
export async function ownGrantId({ principal, prisma }: Reach, id: string, kind?: GrantKind): Promise<string> {
  if (principal.tenantId === null) return id;
  const found = await prisma.grant.findFirst({ where: { id, ...(kind ? { kind } : {}) }, select: { id: true } });
  return found?.id ?? NO_ROW;
}
