-- CreateTable
CREATE TABLE "deployment" (
    "id" INTEGER NOT NULL DEFAULT 1,
    "deployment_id" TEXT,
    "public_url" TEXT,
    "database" JSONB,
    "alive_at" TIMESTAMPTZ(3) NOT NULL,
    "adopted_at" TIMESTAMPTZ(3),

    CONSTRAINT "deployment_pkey" PRIMARY KEY ("id")
);

-- CreateTable
CREATE TABLE "refresh_canary" (
    "app_id" UUID NOT NULL,
    "grant_id" UUID,
    "refused" INTEGER NOT NULL DEFAULT 0,
    "created_at" TIMESTAMPTZ(3) NOT NULL DEFAULT CURRENT_TIMESTAMP,
    "retry_at" TIMESTAMPTZ(3) NOT NULL DEFAULT CURRENT_TIMESTAMP,

    CONSTRAINT "refresh_canary_pkey" PRIMARY KEY ("app_id")
);

-- AddForeignKey
ALTER TABLE "refresh_canary" ADD CONSTRAINT "refresh_canary_app_id_fkey" FOREIGN KEY ("app_id") REFERENCES "provider_app"("id") ON DELETE CASCADE ON UPDATE CASCADE;
