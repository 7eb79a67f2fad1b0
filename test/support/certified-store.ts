import type { Adapter, AdapterPayload } from 'oidc-provider';

/** Where an authorization server of `oidc-provider` keeps what it knows: in memory, one store for each of its models. */
export function createStore(): (model: string) => Adapter {
  const models = new Map<string, Adapter>();
  return (model) => {
    const store = models.get(model) ?? createModelStore();
    models.set(model, store);
    return store;
  };
}

function createModelStore(): Adapter {
  const rows = new Map<string, AdapterPayload>();
  const findBy = async (name: 'uid' | 'userCode', value: string) =>
    [...rows.values()].find((row) => row[name] === value);
  return {
    upsert: async (id, payload) => void rows.set(id, payload),
    find: async (id) => rows.get(id),
    findByUid: (uid) => findBy('uid', uid),
    findByUserCode: (userCode) => findBy('userCode', userCode),
    consume: async (id) => {
      const row = rows.get(id);
      if (row !== undefined) rows.set(id, { ...row, consumed: Math.floor(Date.now() / 1_000) });
    },
    destroy: async (id) => void rows.delete(id),
    revokeByGrantId: async (grantId) => {
      for (const [id, row] of rows) if (row.grantId === grantId) rows.delete(id);
    },
  };
}
