-- Purpose: phase 1: the list of tables, the one place to edit for another application, and the check that no table is missing from it.
-- Touches: rows of tenancy.registry. If the check fails, none: correct the list and push again.
-- Locks:   none that anyone waits for.
-- Undo:    delete from tenancy.registry; after tenancy.roll_back, never before it.

set search_path = '';
set lock_timeout = '1s';
set statement_timeout = '1min';

insert into tenancy.registry (schema_name, table_name, scope, priority, reason)
values
    ('public', 'call_logs', 'org', 'critical', null),
    ('public', 'call_tracking', 'org', 'critical', null),
    ('public', 'calls', 'org', 'critical', null),
    ('public', 'leads', 'org', 'critical', null),
    ('public', 'agents', 'org', 'critical', null),
    ('public', 'knowledge_base', 'org', 'critical', null),
    ('public', 'knowledge_base_changelog', 'org', 'critical', null),
    ('public', 'integrations', 'org', 'critical', null),
    ('public', 'recording_upload_queue', 'org', 'critical', null),
    ('public', 'imports', 'org', 'critical', null),
    ('public', 'outreach_templates', 'org', 'critical', null),
    ('public', 'campaign_metrics', 'org', 'critical', null),
    ('public', 'phone_blacklist', 'org', 'critical', null),
    ('public', 'hallucination_flags', 'org', 'critical', null),
    ('public', 'kb_sync_log', 'org', 'critical', null),
    ('public', 'agent_configurations', 'org', 'secondary', null),
    ('public', 'campaign_phone_numbers', 'org', 'secondary', null),
    ('public', 'campaigns', 'org', 'secondary', null),
    ('public', 'cold_call_logs', 'org', 'secondary', null),
    ('public', 'contacts', 'org', 'secondary', null),
    ('public', 'call_lists', 'org', 'secondary', null),
    ('public', 'dnc_list', 'org', 'secondary', null),
    ('public', 'embeddings', 'org', 'secondary', null),
    ('public', 'knowledge_base_chunks', 'org', 'secondary', null),
    ('public', 'knowledge_base_documents', 'org', 'secondary', null),
    ('public', 'notification_history', 'org', 'secondary', null),
    ('public', 'notification_templates', 'org', 'secondary', null),
    ('public', 'phone_assistants', 'org', 'secondary', null),
    ('public', 'sentiment_analysis', 'org', 'secondary', null),
    ('public', 'telephony_audit_log', 'org', 'secondary', null),
    ('public', 'user_active_calls', 'org', 'secondary', null),
    ('public', 'user_phone_numbers', 'org', 'secondary', null),
    ('public', 'user_twilio_subaccounts', 'org', 'secondary', null),
    ('public', 'usage_events', 'org', 'secondary', null),
    ('public', 'usage_records', 'org', 'secondary', null),
    ('public', 'compliance_audit_logs', 'org', 'secondary', null),
    ('public', 'consent_records', 'org', 'secondary', null),
    ('public', 'credit_transactions', 'org', 'secondary', null),
    ('public', 'customer_twilio_keys', 'org', 'secondary', null),
    ('public', 'daily_lead_uploads', 'org', 'secondary', null),
    ('public', 'notification_rate_limits', 'org', 'secondary', null),
    ('public', 'onboarding_events', 'org', 'secondary', null),
    ('public', 'payment_events_log', 'org', 'secondary', null),
    ('public', 'payments', 'org', 'secondary', null),
    ('public', 'billing_cycles', 'org', 'secondary', null),
    ('public', 'profiles', 'excluded', null, 'uses tenant_id, a different model'),
    ('public', 'user_profiles', 'excluded', null, 'user-specific, not org-scoped'),
    ('public', 'user_credits', 'excluded', null, 'user-specific'),
    ('public', 'user_subscriptions', 'excluded', null, 'user-specific'),
    ('public', 'customers', 'excluded', null, 'user-specific'),
    ('public', 'billing_plans', 'excluded', null, 'global reference data'),
    ('public', 'pricing_tiers', 'excluded', null, 'global reference data'),
    ('public', 'voice_options', 'excluded', null, 'global reference data'),
    ('public', 'campaign_templates', 'excluded', null, 'global reference data')
on conflict (schema_name, table_name) do update
set
    scope = excluded.scope,
    priority = excluded.priority,
    reason = excluded.reason;

select tenancy.assert_registry();
