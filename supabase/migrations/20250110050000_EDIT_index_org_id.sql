-- pg-delta: transaction=false
-- Purpose: phase 2, indexes: one on org_id for every org-scoped table or partition, one plain line per large one; the other file to edit.
-- Touches: new indexes only. After the backfill, because an index on org_id would make every one of its updates dearer.
-- Locks:   SHARE UPDATE EXCLUSIVE: reads and writes go on; a long transaction anywhere delays the build, never the other way round.
-- Undo:    tenancy.roll_back(1).

set search_path = '';
set lock_timeout = '1s';
set statement_timeout = 0;
set client_connection_check_interval = '1s';
set synchronous_commit = off;

do $$ begin while tenancy.advance('invalid_index') loop commit; end loop; end $$;

-- A build waits for every older transaction, as long as it takes; it holds nobody up meanwhile.
set lock_timeout = 0;
create index concurrently if not exists idx_call_logs_org_id on public.call_logs (org_id);
create index concurrently if not exists idx_call_tracking_org_id on public.call_tracking (org_id);
create index concurrently if not exists idx_calls_org_id on public.calls (org_id);
create index concurrently if not exists idx_leads_org_id on public.leads (org_id);
create index concurrently if not exists idx_agents_org_id on public.agents (org_id);
create index concurrently if not exists idx_knowledge_base_org_id on public.knowledge_base (org_id);
create index concurrently if not exists idx_knowledge_base_changelog_org_id on public.knowledge_base_changelog (org_id);
create index concurrently if not exists idx_integrations_org_id on public.integrations (org_id);
create index concurrently if not exists idx_recording_upload_queue_org_id on public.recording_upload_queue (org_id);
create index concurrently if not exists idx_imports_org_id on public.imports (org_id);
create index concurrently if not exists idx_outreach_templates_org_id on public.outreach_templates (org_id);
create index concurrently if not exists idx_campaign_metrics_org_id on public.campaign_metrics (org_id);
create index concurrently if not exists idx_phone_blacklist_org_id on public.phone_blacklist (org_id);
create index concurrently if not exists idx_hallucination_flags_org_id on public.hallucination_flags (org_id);
create index concurrently if not exists idx_kb_sync_log_org_id on public.kb_sync_log (org_id);
create index concurrently if not exists idx_agent_configurations_org_id on public.agent_configurations (org_id);
create index concurrently if not exists idx_campaign_phone_numbers_org_id on public.campaign_phone_numbers (org_id);
create index concurrently if not exists idx_campaigns_org_id on public.campaigns (org_id);
create index concurrently if not exists idx_cold_call_logs_org_id on public.cold_call_logs (org_id);
create index concurrently if not exists idx_contacts_org_id on public.contacts (org_id);
create index concurrently if not exists idx_call_lists_org_id on public.call_lists (org_id);
create index concurrently if not exists idx_dnc_list_org_id on public.dnc_list (org_id);
create index concurrently if not exists idx_embeddings_org_id on public.embeddings (org_id);
create index concurrently if not exists idx_knowledge_base_chunks_org_id on public.knowledge_base_chunks (org_id);
create index concurrently if not exists idx_knowledge_base_documents_org_id on public.knowledge_base_documents (org_id);
create index concurrently if not exists idx_notification_history_org_id on public.notification_history (org_id);
create index concurrently if not exists idx_notification_templates_org_id on public.notification_templates (org_id);
create index concurrently if not exists idx_phone_assistants_org_id on public.phone_assistants (org_id);
create index concurrently if not exists idx_sentiment_analysis_org_id on public.sentiment_analysis (org_id);
create index concurrently if not exists idx_telephony_audit_log_org_id on public.telephony_audit_log (org_id);
create index concurrently if not exists idx_user_active_calls_org_id on public.user_active_calls (org_id);
create index concurrently if not exists idx_user_phone_numbers_org_id on public.user_phone_numbers (org_id);
create index concurrently if not exists idx_user_twilio_subaccounts_org_id on public.user_twilio_subaccounts (org_id);
create index concurrently if not exists idx_usage_events_org_id on public.usage_events (org_id);
create index concurrently if not exists idx_usage_records_org_id on public.usage_records (org_id);
create index concurrently if not exists idx_compliance_audit_logs_org_id on public.compliance_audit_logs (org_id);
create index concurrently if not exists idx_consent_records_org_id on public.consent_records (org_id);
create index concurrently if not exists idx_credit_transactions_org_id on public.credit_transactions (org_id);
create index concurrently if not exists idx_customer_twilio_keys_org_id on public.customer_twilio_keys (org_id);
create index concurrently if not exists idx_daily_lead_uploads_org_id on public.daily_lead_uploads (org_id);
create index concurrently if not exists idx_notification_rate_limits_org_id on public.notification_rate_limits (org_id);
create index concurrently if not exists idx_onboarding_events_org_id on public.onboarding_events (org_id);
create index concurrently if not exists idx_payment_events_log_org_id on public.payment_events_log (org_id);
create index concurrently if not exists idx_payments_org_id on public.payments (org_id);
create index concurrently if not exists idx_billing_cycles_org_id on public.billing_cycles (org_id);

select tenancy.assert_org_id_indexes();
-- Tables and partitions up to settings.small_table_bytes need no line.
do $$ begin while tenancy.advance('index') loop commit; end loop; end $$;
