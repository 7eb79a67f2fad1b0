-- CreateIndex
CREATE INDEX "credential_app_id_tenant_id_next_refresh_at_idx" ON "credential"("app_id", "tenant_id", "next_refresh_at");
