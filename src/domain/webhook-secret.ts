import { randomBytes } from 'node:crypto';
import type { Sql } from '../database/database.js';
import { Secret } from '../secret.js';
import type { Sealed } from '../vault/vault.js';
import type { Deps } from './deps.js';

/** Standard Webhooks asks for 24 to 64 bytes. */
const SECRET_BYTES = 32;

const COLUMNS = { secret: 'sealed_secret', formerSecret: 'sealed_former_secret' } as const;
type SecretName = keyof typeof COLUMNS;

/** What the seals of an endpoint's secrets are bound to. */
export interface SecretOwner {
  id: string;
  /** Null: an endpoint for the events of all tenants, whose secrets the system key seals. */
  tenantId: string | null;
  secretVersion: number;
}

const place = ({ id, tenantId, secretVersion }: SecretOwner, name: SecretName) => ({
  tenantId,
  table: 'webhook_endpoint',
  column: COLUMNS[name],
  recordId: id,
  version: secretVersion,
});

/** In the form of Standard Webhooks: `whsec_` and base64. */
export const freshSecret = (): Secret => new Secret(`whsec_${randomBytes(SECRET_BYTES).toString('base64')}`);

/** Seals both secrets for one version of the row. */
export async function sealSecrets(
  deps: Pick<Deps, 'vault'>,
  tx: Sql,
  owner: SecretOwner,
  secrets: { secret: Secret; formerSecret: Secret | null },
): Promise<{ secret: Sealed; formerSecret: Sealed | null; keyVersion: number }> {
  const { seal, keyVersion } = await deps.vault.sealer(tx, owner.tenantId);
  return {
    secret: seal(place(owner, 'secret'), secrets.secret),
    formerSecret: secrets.formerSecret === null ? null : seal(place(owner, 'formerSecret'), secrets.formerSecret),
    keyVersion,
  };
}

/** The secrets that sign: the present one, and the former one where it is not retired. */
export async function openSecrets(
  deps: Pick<Deps, 'vault'>,
  db: Sql,
  owner: SecretOwner & { sealedSecret: Sealed; sealedFormerSecret: Sealed | null },
): Promise<[Secret, ...Secret[]]> {
  const secret = await deps.vault.open(db, place(owner, 'secret'), owner.sealedSecret);
  if (owner.sealedFormerSecret === null) return [secret];
  return [secret, await deps.vault.open(db, place(owner, 'formerSecret'), owner.sealedFormerSecret)];
}
