-- CreateTable
CREATE TABLE "hosted_meeting" (
    "grant_id" UUID NOT NULL,
    "meeting_id" TEXT NOT NULL,
    "tenant_id" UUID NOT NULL,
    "host_user_id" TEXT NOT NULL,
    "is_personal" BOOLEAN NOT NULL,
    "is_listed" BOOLEAN NOT NULL,
    "is_gone" BOOLEAN NOT NULL,
    "as_of" TIMESTAMPTZ(3) NOT NULL,

    CONSTRAINT "hosted_meeting_pkey" PRIMARY KEY ("grant_id","meeting_id")
);

-- CreateTable
CREATE TABLE "meeting_listing" (
    "grant_id" UUID NOT NULL,
    "host_user_id" TEXT NOT NULL,
    "tenant_id" UUID NOT NULL,
    "environment" "ProviderEnvironment" NOT NULL,
    "provider_account_id" TEXT NOT NULL,
    "due_at" TIMESTAMPTZ(3) NOT NULL,
    "started_at" TIMESTAMPTZ(3),
    "page_token" TEXT,
    "page_token_expires_at" TIMESTAMPTZ(3),
    "seen_at" TIMESTAMPTZ(3) NOT NULL DEFAULT CURRENT_TIMESTAMP,
    "failures" INTEGER NOT NULL DEFAULT 0,

    CONSTRAINT "meeting_listing_pkey" PRIMARY KEY ("grant_id","host_user_id")
);

-- CreateTable
CREATE TABLE "provider_account" (
    "environment" "ProviderEnvironment" NOT NULL,
    "account_id" TEXT NOT NULL,
    "next_listing_at" TIMESTAMPTZ(3),
    "listing_paused_until" TIMESTAMPTZ(3),
    "tokens_paused_until" TIMESTAMPTZ(3),

    CONSTRAINT "provider_account_pkey" PRIMARY KEY ("environment","account_id")
);

-- CreateIndex
CREATE INDEX "hosted_meeting_meeting_id_idx" ON "hosted_meeting"("meeting_id");

-- CreateIndex
CREATE INDEX "hosted_meeting_grant_id_host_user_id_idx" ON "hosted_meeting"("grant_id", "host_user_id");

-- CreateIndex
CREATE INDEX "hosted_meeting_tenant_id_idx" ON "hosted_meeting"("tenant_id");

-- CreateIndex
CREATE INDEX "meeting_listing_environment_provider_account_id_due_at_idx" ON "meeting_listing"("environment", "provider_account_id", "due_at");

-- CreateIndex
CREATE INDEX "meeting_listing_tenant_id_idx" ON "meeting_listing"("tenant_id");

-- CreateIndex
CREATE INDEX "provider_account_next_listing_at_idx" ON "provider_account"("next_listing_at");

-- AddForeignKey
ALTER TABLE "hosted_meeting" ADD CONSTRAINT "hosted_meeting_grant_id_fkey" FOREIGN KEY ("grant_id") REFERENCES "provider_grant"("id") ON DELETE CASCADE ON UPDATE CASCADE;

-- AddForeignKey
ALTER TABLE "hosted_meeting" ADD CONSTRAINT "hosted_meeting_tenant_id_fkey" FOREIGN KEY ("tenant_id") REFERENCES "tenant"("id") ON DELETE CASCADE ON UPDATE CASCADE;

-- AddForeignKey
ALTER TABLE "meeting_listing" ADD CONSTRAINT "meeting_listing_grant_id_fkey" FOREIGN KEY ("grant_id") REFERENCES "provider_grant"("id") ON DELETE CASCADE ON UPDATE CASCADE;

-- AddForeignKey
ALTER TABLE "meeting_listing" ADD CONSTRAINT "meeting_listing_tenant_id_fkey" FOREIGN KEY ("tenant_id") REFERENCES "tenant"("id") ON DELETE CASCADE ON UPDATE CASCADE;
