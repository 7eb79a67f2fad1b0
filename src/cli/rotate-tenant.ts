import type { Output } from './output.js';
import { type Server, succeeded } from './server.js';

interface TenantKey {
  version: number;
  createdAt: string;
  pendingReseal: number;
}

export async function rotateTenant(server: Server, output: Output, tenantId: string): Promise<void> {
  const selection = 'tenantKey { version createdAt pendingReseal }';
  const outcome = await server.mutate<{ tenantKey: TenantKey }>('rotateTenantKey', { tenantId }, selection);
  const { tenantKey } = succeeded(outcome);
  output.result(
    { tenantId, ...tenantKey },
    () => `version ${tenantKey.version} seals from now on; ${tenantKey.pendingReseal} secrets are being sealed anew`,
  );
}
